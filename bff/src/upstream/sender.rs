//! Posts what is stored for the application: several lines at the same time, the messages of one line one
//! after the other, each until it has arrived or never will.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use carillon_broker::limits::OUTBOX_ATTEMPTS_MAX;
use carillon_broker::{Broker, BrokerError, Held, Outgoing};
use carillon_protocol::Backoff;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Upstream;
use crate::metrics::{self, Attempt};
use crate::now_ms;
use crate::outbound::Outbound;
use crate::signature::{Digest, SignatureError, Unsigned};

/// Messages that one replica sends at the same time, each of another line.
const SENDING_MAX: usize = 16;
/// How often the outbox is looked at when nobody says that there is something in it.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The application has this long to answer; the lease of a message is longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the first attempt that failed; it doubles with each, to four minutes after the ninth.
const PAUSE_MS: u64 = 1_000;
/// The longest pause after Redis did not answer.
const RETRY_CAP_MS: u64 = 1_000;
/// How often what came of an attempt is said while Redis does not answer; then the lease runs out.
const SAY_MAX_TRIES: u32 = 5;
/// At the stop, attempts that were begun have this long to end. Another replica repeats those that do not.
const STOP_GRACE: Duration = Duration::from_secs(5);

const JSON: &str = "application/json";
/// The name by which an application that speaks APIAuth knows who signs.
const ACCESS_ID: &str = "carillon";

pub(super) struct Sender {
    upstream: Upstream,
    broker: Broker,
    replica: Arc<str>,
    client: Outbound,
    /// Notified when a message was stored here.
    wake: Arc<Notify>,
}

/// What came of an attempt.
enum Outcome {
    Arrived,
    /// It may arrive another time.
    Failed(String),
    /// The application does not want it.
    Refused(String),
}

impl Sender {
    pub(super) fn new(upstream: Upstream, broker: Broker, replica: Arc<str>, wake: Arc<Notify>) -> Self {
        Self { upstream, broker, replica, client: Outbound::new(), wake }
    }

    /// Takes what is due while it has hands free.
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        let mut sending = FuturesUnordered::new();
        loop {
            let (free, mut pause) = (SENDING_MAX - sending.len(), POLL_EVERY);
            if free > 0 {
                match self.broker.take_outgoing(&self.replica, free).await {
                    Ok(due) => {
                        backoff.reset();
                        metrics::upstream_undeliverable(due.given_up);
                        sending.extend(due.outgoing.into_iter().map(|outgoing| self.send(outgoing)));
                    }
                    Err(error) => {
                        let wait_ms = backoff.next_ms(fastrand::f64());
                        if backoff.attempt() == 1 {
                            tracing::warn!(retry.ms = wait_ms, %error, "cannot look for messages to the application");
                        }
                        pause = Duration::from_millis(wait_ms);
                    }
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // The next one of its line is due.
                Some(()) = sending.next() => {}
                () = self.wake.notified() => {}
                () = sleep(pause) => {}
            }
        }
        let _ = timeout(STOP_GRACE, async { while sending.next().await.is_some() {} }).await;
        Ok(())
    }

    async fn send(&self, outgoing: Outgoing) {
        let outcome = match self.post(&outgoing).await {
            Ok(status) if status.is_success() => Outcome::Arrived,
            Ok(status) if is_final(status) => Outcome::Refused(format!("the application answered {status}")),
            Ok(status) => Outcome::Failed(format!("the application answered {status}")),
            Err(fault) => Outcome::Failed(fault),
        };
        let outcome = match outcome {
            Outcome::Failed(fault) if outgoing.attempt >= OUTBOX_ATTEMPTS_MAX => {
                Outcome::Refused(format!("{OUTBOX_ATTEMPTS_MAX} attempts; the last one: {fault}"))
            }
            outcome => outcome,
        };
        metrics::upstream_attempt(match &outcome {
            Outcome::Arrived => Attempt::Arrived,
            Outcome::Failed(_) => Attempt::Failed,
            Outcome::Refused(_) => Attempt::Refused,
        });
        self.say(&outgoing, &outcome).await;
    }

    /// One attempt, signed as of now. The words of an error are for the log: they may name hosts.
    async fn post(&self, outgoing: &Outgoing) -> Result<StatusCode, String> {
        let Upstream { url, signing } = &self.upstream;
        let now_ms = now_ms();
        let mut headers = vec![(header::CONTENT_TYPE.as_str(), JSON.to_owned())];
        let unsigned = |error: SignatureError| format!("it cannot be signed: {error}");
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
        self.client.tell(request, ANSWER_TIMEOUT).await
    }

    /// Writes down what came of an attempt, again while Redis does not answer. If it cannot be written, the
    /// message is due when its lease is over: the application gets it again, with the same id.
    async fn say(&self, outgoing: &Outgoing, outcome: &Outcome) {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            match self.write(outgoing, outcome).await {
                Ok(Held::Yes) => return,
                Ok(Held::Lost) => return metrics::upstream_attempt(Attempt::Lost),
                Err(error) if backoff.attempt() + 1 >= SAY_MAX_TRIES => {
                    tracing::warn!(message.id = outgoing.id, %error, "a message to the application will be sent again");
                    return metrics::upstream_attempt(Attempt::Lost);
                }
                Err(_) => sleep(Duration::from_millis(backoff.next_ms(fastrand::f64()))).await,
            }
        }
    }

    async fn write(&self, outgoing: &Outgoing, outcome: &Outcome) -> Result<Held, BrokerError> {
        match outcome {
            Outcome::Arrived => self.broker.outgoing_done(outgoing).await,
            Outcome::Failed(fault) => {
                let pause_ms = pause_ms(outgoing.attempt, fastrand::f64());
                tracing::warn!(
                    message.id = outgoing.id,
                    attempt = outgoing.attempt,
                    retry.ms = pause_ms,
                    fault,
                    "a message did not reach the application"
                );
                self.broker.postpone_outgoing(outgoing, pause_ms).await
            }
            Outcome::Refused(detail) => {
                let held = self.broker.give_up_outgoing(outgoing, &self.replica, detail).await?;
                if held == Held::Yes {
                    metrics::upstream_undeliverable(1);
                    tracing::warn!(
                        message.id = outgoing.id,
                        detail,
                        "a message to the application went to the dead list"
                    );
                }
                Ok(held)
            }
        }
    }
}

/// Whether an answer stays the same however often the message is sent.
fn is_final(status: StatusCode) -> bool {
    let may_pass = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !may_pass.contains(&status)
}

/// The pause after an attempt, between half of its most and all of it, by a `random` from 0 to 1: messages
/// that failed together are not to come back together.
fn pause_ms(attempt: u32, random: f64) -> u64 {
    let most = PAUSE_MS << attempt.clamp(1, OUTBOX_ATTEMPTS_MAX).saturating_sub(1);
    Duration::from_millis(most).mul_f64(0.5 + random / 2.0).as_millis().try_into().unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_and_is_drawn_from_its_upper_half() {
        assert_eq!((pause_ms(1, 0.0), pause_ms(1, 1.0)), (500, 1_000));
        assert_eq!((pause_ms(2, 0.0), pause_ms(2, 1.0)), (1_000, 2_000));
        assert_eq!(pause_ms(9, 1.0), 256_000);
    }

    #[test]
    fn what_the_application_does_not_want_is_told_apart_from_what_may_pass() {
        let is_final = |status: u16| is_final(StatusCode::from_u16(status).unwrap());
        assert!([400, 401, 403, 404, 410, 413, 422].into_iter().all(is_final));
        assert!(![301, 408, 429, 500, 502, 503, 504].into_iter().any(is_final));
    }
}
