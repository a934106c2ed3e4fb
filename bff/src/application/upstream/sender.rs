//! Posts the stored messages to the application: several lines at the same time, the messages of one line one after the
//! other, each until it has arrived or is given up.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use carillon_auth::signature::{Digest, SignatureError, Unsigned};
use carillon_broker::limits::OUTBOX_PAUSE_MAX_MS;
use carillon_broker::{Broker, BrokerError, GivenUp, Lease, Outgoing};
use carillon_protocol::http::ApplicationMessage;
use carillon_protocol::{Audience, Backoff};
use carillon_service::outbound::Outbound;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Upstream;
use crate::clock::now_ms;
use crate::metrics::{self, Attempt};

/// Maximum messages that one replica sends at the same time, each of another line.
const SENDING_MAX: usize = 16;
/// The interval of polls of the outbox when no wake-up arrives.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The timeout of one attempt; the lease of a message is longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause of a line after its first failed attempt. It doubles with each further one, up to five minutes.
const PAUSE_MS: u64 = 1_000;
const PAUSE_CAP_MS: u64 = 5 * 60 * 1_000;
/// The longest pause after Redis did not answer.
const RETRY_CAP_MS: u64 = 1_000;
/// How often the result of an attempt is sent to Redis without an answer; then the lease expires.
const RECORD_MAX_TRIES: u32 = 5;
/// The time at the stop for running attempts to end. Another replica repeats the others.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Maximum lines that are remembered as warned of.
const WARNED_MAX: usize = 1_024;

const JSON: &str = "application/json";
/// The access id in an APIAuth signature.
const ACCESS_ID: &str = "carillon";

pub(super) struct Sender {
    upstream: Upstream,
    broker: Broker,
    replica: Arc<str>,
    client: Outbound,
    /// Notified when a message was stored here.
    wake: Arc<Notify>,
    warned: Warned,
}

/// The result of an attempt.
enum Outcome {
    Arrived,
    /// A later attempt may succeed.
    Failed {
        fault: String,
        /// The `Retry-After` of the application.
        retry_after_ms: u64,
    },
    /// The application refuses messages for good.
    Refused(String),
    /// The attempts have lasted the longest time.
    Over(String),
}

impl Sender {
    pub(super) fn new(upstream: Upstream, broker: Broker, replica: Arc<str>, wake: Arc<Notify>) -> Self {
        Self {
            upstream,
            broker,
            replica,
            client: Outbound::with_default_roots(),
            wake,
            warned: Warned::default(),
        }
    }

    /// Takes due messages while it has free slots, and sends them.
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        let mut sending = FuturesUnordered::new();
        loop {
            let (free, mut pause) = (SENDING_MAX - sending.len(), POLL_EVERY);
            if free > 0 {
                match self.broker.take_outgoing(free).await {
                    Ok(due) => {
                        backoff.reset();
                        sending.extend(due.into_iter().map(|outgoing| self.send(outgoing)));
                    }
                    Err(error) => {
                        let wait_ms = backoff.next_ms(fastrand::f64());
                        if backoff.attempt() == 1 {
                            tracing::warn!(retry.ms = wait_ms, %error, "cannot take messages to the application");
                        }
                        pause = Duration::from_millis(wait_ms);
                    }
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // The next message of this line is due.
                Some(()) = sending.next() => {}
                () = self.wake.notified() => {}
                () = sleep(pause) => {}
            }
        }
        let _ = timeout(STOP_GRACE, async { while sending.next().await.is_some() {} }).await;
        Ok(())
    }

    async fn send(&self, outgoing: Outgoing) {
        let outcome = match outgoing.is_over() {
            Some(why) => Outcome::Over(why),
            None => match self.post(&outgoing).await {
                Ok((status, _)) if status.is_success() => Outcome::Arrived,
                // Only 410 means that the application is gone for good. A 401 or 404 may come from a failed deploy.
                Ok((StatusCode::GONE, _)) => Outcome::Refused("the application answered 410 Gone".to_owned()),
                Ok((status, headers)) => Outcome::Failed {
                    fault: format!("the application answered {status}"),
                    retry_after_ms: retry_after_ms(&headers, now_ms()),
                },
                Err(fault) => Outcome::Failed { fault, retry_after_ms: 0 },
            },
        };
        metrics::upstream_attempt(match &outcome {
            Outcome::Arrived => Attempt::Arrived,
            Outcome::Failed { .. } => Attempt::Failed,
            Outcome::Refused(_) | Outcome::Over(_) => Attempt::Refused,
        });
        self.record(&outgoing, &outcome).await;
    }

    /// Makes one attempt, signed with the current time. The error text is for the log only, since it may name hosts.
    async fn post(&self, outgoing: &Outgoing) -> Result<(StatusCode, HeaderMap), String> {
        let Upstream { url, signing } = &self.upstream;
        let now_ms = now_ms();
        let mut headers = vec![(header::CONTENT_TYPE.as_str(), JSON.to_owned())];
        let unsigned = |error: SignatureError| format!("cannot sign it: {error}");
        if let Some(webhooks) = &signing.webhooks {
            headers.extend(webhooks.sign(&outgoing.id, now_ms, &outgoing.message).map_err(unsigned)?);
        }
        if let Some(api_auth) = &signing.api_auth {
            let path = url.path_and_query().map_or("/", |path| path.as_str());
            let request =
                Unsigned { method: &Method::POST, path, content_type: JSON, body: &outgoing.message };
            headers.extend(api_auth.sign(Digest::Sha1, ACCESS_ID, request, now_ms).map_err(unsigned)?);
        }
        let request = headers
            .into_iter()
            .fold(Request::post(url), |request, (name, value)| request.header(name, value))
            .body(Full::new(Bytes::copy_from_slice(&outgoing.message)))
            .map_err(|error| error.to_string())?;
        self.client.send(request, ANSWER_TIMEOUT).await.map_err(|error| error.to_string())
    }

    /// Records the result of an attempt, and retries while Redis does not answer. Without a record, the message is due again
    /// when its lease expires: the application gets it again, with the same id.
    async fn record(&self, outgoing: &Outgoing, outcome: &Outcome) {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            match self.write(outgoing, outcome).await {
                Ok(Lease::Held) => return,
                Ok(Lease::Lost) => return metrics::upstream_attempt(Attempt::Lost),
                Err(error) if backoff.attempt() + 1 >= RECORD_MAX_TRIES => {
                    tracing::warn!(message.id = outgoing.id, %error, "cannot record the result of a message to the application; it will be sent again");
                    return metrics::upstream_attempt(Attempt::Lost);
                }
                Err(_) => sleep(Duration::from_millis(backoff.next_ms(fastrand::f64()))).await,
            }
        }
    }

    async fn write(&self, outgoing: &Outgoing, outcome: &Outcome) -> Result<Lease, BrokerError> {
        match outcome {
            Outcome::Arrived => self.broker.outgoing_done(outgoing).await,
            Outcome::Failed { fault, retry_after_ms } => {
                let pause_ms = pause_ms(outgoing.failures, fastrand::f64()).max(*retry_after_ms);
                let (message, line, failures) = (&outgoing.id, &outgoing.line, outgoing.failures);
                // The line waits for its first message, which may fail again and again: only the first failure is logged as
                // a warning.
                if failures == 1 {
                    tracing::warn!(message.id = message, %line, retry.ms = pause_ms, fault, "a message did not reach the application; its line waits and is retried for a day");
                } else {
                    tracing::debug!(message.id = message, %line, failures, retry.ms = pause_ms, fault, "a message did not reach the application again");
                }
                self.broker.postpone_outgoing(outgoing, pause_ms).await
            }
            Outcome::Refused(detail) => self.give_up(outgoing, detail, true).await,
            Outcome::Over(detail) => self.give_up(outgoing, detail, false).await,
        }
    }

    /// Moves a message to the dead list, and notifies its sender on any device.
    async fn give_up(&self, outgoing: &Outgoing, detail: &str, answered: bool) -> Result<Lease, BrokerError> {
        let notice = notice(outgoing, if answered { detail } else { "it could not be reached for a day" });
        let how = GivenUp { replica: &self.replica, detail, answered, notice: &notice };
        let held = self.broker.give_up_outgoing(outgoing, how).await?;
        if held == Lease::Held {
            metrics::upstream_undeliverable(1);
            let (message, line) = (&outgoing.id, &outgoing.line);
            if self.warned.is_first(line) {
                tracing::warn!(message.id = message, %line, detail, "messages of a line to the application go to the dead list");
            } else {
                tracing::debug!(message.id = message, %line, detail, "a message to the application went to the dead list");
            }
        }
        Ok(held)
    }
}

/// Returns the notification to the sender of a message that is given up. As a notification, it also reaches a sender on
/// another device or one who is offline.
fn notice(outgoing: &Outgoing, why: &str) -> String {
    let sent = serde_json::from_slice::<ApplicationMessage>(&outgoing.message);
    let own = sent.map_or(outgoing.id.clone(), |sent| sent.id);
    serde_json::json!({
        "id": format!("undelivered:{}", outgoing.id),
        "to": outgoing.line,
        "severity": "error",
        "title": "Your message was not delivered",
        "body": format!("The application did not accept it: {why}."),
        "data": { "undelivered": { "id": own, "detail": why } },
    })
    .to_string()
}

/// The lines whose first message in the dead list was logged as a warning.
#[derive(Default)]
struct Warned(Mutex<HashSet<Audience>>);

impl Warned {
    fn is_first(&self, line: &Audience) -> bool {
        let mut lines = self.0.lock();
        // A line that is forgotten is logged again.
        if lines.len() >= WARNED_MAX {
            lines.clear();
        }
        lines.insert(line.clone())
    }
}

/// Returns the wait that a `Retry-After` requests, in seconds or as a date (RFC 9110), at most the longest pause.
fn retry_after_ms(headers: &HeaderMap, now_ms: u64) -> u64 {
    let Some(value) = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()) else {
        return 0;
    };
    let asked_ms = match (value.trim().parse::<u64>(), httpdate::parse_http_date(value.trim())) {
        (Ok(seconds), _) => seconds.saturating_mul(1_000),
        (_, Ok(at)) => {
            let at_ms = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            u64::try_from(at_ms).unwrap_or(u64::MAX).saturating_sub(now_ms)
        }
        _ => 0,
    };
    asked_ms.min(OUTBOX_PAUSE_MAX_MS)
}

/// Returns the pause after `failures` in a row: between half of the maximum and the maximum, by a `random` from 0 to 1, so
/// that lines that failed together do not retry together.
fn pause_ms(failures: u32, random: f64) -> u64 {
    let max_ms = (PAUSE_MS << failures.clamp(1, 32).saturating_sub(1)).min(PAUSE_CAP_MS);
    Duration::from_millis(max_ms).mul_f64(0.5 + random / 2.0).as_millis().try_into().unwrap_or(max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_five_minutes_and_is_drawn_from_its_upper_half() {
        assert_eq!((pause_ms(1, 0.0), pause_ms(1, 1.0)), (500, 1_000));
        assert_eq!((pause_ms(2, 0.0), pause_ms(2, 1.0)), (1_000, 2_000));
        assert_eq!(pause_ms(9, 1.0), 256_000);
        assert_eq!((pause_ms(10, 1.0), pause_ms(100_000, 1.0)), (300_000, 300_000));
    }

    #[test]
    fn the_retry_after_of_the_application_is_obeyed_up_to_an_hour() {
        let wait = |value: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]);
            retry_after_ms(&headers, 1_795_247_100_000)
        };
        assert_eq!(retry_after_ms(&HeaderMap::new(), 0), 0);
        for (value, ms) in [
            ("120", 120_000),
            (" 0 ", 0),
            ("86400", 3_600_000),
            ("99999999999999999999", 0),
            ("18446744073709551615", 3_600_000),
            ("-5", 0),
            ("soon", 0),
            ("Sat, 21 Nov 2026 07:47:00 GMT", 120_000),
            ("Sat, 21 Nov 2026 07:00:00 GMT", 0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 3_600_000),
        ] {
            assert_eq!(wait(value), ms, "{value}");
        }
    }

    #[test]
    fn a_warning_is_logged_once_for_each_line() {
        let (warned, line) = (Warned::default(), |n: usize| Audience::Session(n.to_string()));
        assert!(warned.is_first(&line(0)) && !warned.is_first(&line(0)) && warned.is_first(&line(1)));
        for n in 0..2 * WARNED_MAX {
            warned.is_first(&line(n));
        }
        assert!(warned.0.lock().len() <= WARNED_MAX);
    }

    #[test]
    fn the_notice_names_the_message() {
        let of = |message: &str| Outgoing {
            line: Audience::Session("s".into()),
            id: "msg_1".into(),
            attempt: 3,
            failures: 3,
            silent: 0,
            waited_ms: 0,
            message: message.as_bytes().to_vec(),
        };
        let told =
            notice(&of(r#"{"id":"m-1","connection":"c","message":"x","at":"2026-11-21T07:45:00Z"}"#), "why");
        let told = carillon_protocol::Notification::check(&told).unwrap();
        assert_eq!((told.id.as_str(), &told.to), ("undelivered:msg_1", &Audience::Session("s".into())));
        let data: serde_json::Value = serde_json::from_str(told.data.unwrap().get()).unwrap();
        assert_eq!(data, serde_json::json!({"undelivered": {"id": "m-1", "detail": "why"}}));
    }
}
