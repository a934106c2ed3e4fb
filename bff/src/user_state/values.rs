//! Reads the states and presences of users when they are due, and sends them to their readers.

use std::sync::Arc;
use std::time::Duration;

use carillon_broker::{Broker, BrokerError};
use carillon_protocol::{Backoff, format_timestamp};
use futures_util::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::delivery::hub::{Direct, Hub, Recipients, Value};
use crate::metrics;

/// Maximum values that are read at the same time. The next are read after these were sent, so that no older value is sent
/// after a newer one; changes in the meantime are merged.
const READS_MAX: usize = 32;
/// The longest pause after a read that Redis did not answer.
const RETRY_CAP_MS: u64 = 1_000;

pub(crate) struct Values {
    pub(crate) broker: Broker,
    pub(crate) hub: Arc<Hub>,
}

impl Values {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = self.read_when_due() => anyhow::bail!("the loop that reads values of users ended"),
        }
    }

    async fn read_when_due(&self) {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            let due = self.hub.values_due(READS_MAX);
            if due.is_empty() {
                self.hub.values_notify().notified().await;
                continue;
            }
            let (mut states, mut presences) = (Vec::new(), Vec::new());
            for (value, recipients) in due {
                match value {
                    Value::State(user) => states.push((user, recipients)),
                    Value::Presence(user) => presences.push((user, recipients)),
                }
            }
            let away = tokio::join!(self.states(&states), self.presences(&presences));
            if away.0 || away.1 {
                tokio::time::sleep(Duration::from_millis(backoff.next_ms(fastrand::f64()))).await;
            } else {
                backoff.reset();
            }
        }
    }

    /// Returns whether Redis was unreachable: then the states are due again.
    async fn states(&self, due: &[(String, Recipients)]) -> bool {
        let states = join_all(due.iter().map(|(user, _)| self.broker.state(user))).await;
        let mut away = false;
        for ((user, recipients), state) in due.iter().zip(states) {
            let value = Value::State(user.clone());
            match state {
                Ok(state) => {
                    metrics::values_read("state", 1);
                    self.hub.send_value(&value, &Direct::State(json!(state).to_string().into()), *recipients);
                }
                Err(error) => away |= self.handle_failure("state", value, *recipients, &error),
            }
        }
        away
    }

    /// Reads all of them with one script.
    async fn presences(&self, due: &[(String, Recipients)]) -> bool {
        let users: Vec<_> = due.iter().map(|(user, _)| user.clone()).collect();
        if users.is_empty() {
            return false;
        }
        match self.broker.presence(&users).await {
            Ok(presences) => {
                metrics::values_read("presence", users.len() as u64);
                for (presence, (user, recipients)) in presences.iter().zip(due) {
                    let direct = Direct::Presence {
                        user: user.as_str().into(),
                        fields: fields(user, presence.since_ms).into(),
                    };
                    self.hub.send_value(&Value::Presence(user.clone()), &direct, *recipients);
                }
                false
            }
            Err(error) => {
                let failed = due.iter().map(|(user, recipients)| {
                    self.handle_failure("presence", Value::Presence(user.clone()), *recipients, &error)
                });
                failed.fold(false, |any, away| any | away)
            }
        }
    }

    fn handle_failure(
        &self,
        kind: &'static str,
        value: Value,
        recipients: Recipients,
        error: &BrokerError,
    ) -> bool {
        if let BrokerError::Away(_) = error {
            self.hub.value_is_due(value, recipients);
            return true;
        }
        metrics::value_failed(kind);
        tracing::warn!(kind, %error, "cannot read a value of a user; it is not sent");
        false
    }
}

/// Returns the fields of the `presence` frame after its cursor.
fn fields(user: &str, since_ms: Option<u64>) -> String {
    let user = serde_json::Value::from(user);
    match since_ms {
        Some(since_ms) => {
            format!(r#""user":{user},"online":true,"since":"{}""#, format_timestamp(since_ms))
        }
        None => format!(r#""user":{user},"online":false"#),
    }
}

#[cfg(test)]
mod tests {
    use carillon_broker::{FanOut, Subscriptions};
    use carillon_protocol::{Audience, ServerMessage};
    use tokio::sync::Notify;

    use super::*;
    use crate::delivery::hub::Next;

    #[tokio::test(start_paused = true)]
    async fn a_value_that_cannot_be_read_is_sent_when_redis_is_back() {
        let (broker, faults) = Broker::memory(Arc::new(|| 1));
        let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
        let audiences = [Audience::User("ann".into()), Audience::Topic("presence:ben".into())];
        let notify = Arc::<Notify>::default();
        hub.join(1, audiences.clone().into(), &notify);
        hub.values_received(&audiences);
        faults.go_away();
        let values = Values { broker, hub: Arc::clone(&hub) };
        let coming = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(matches!(hub.next(1), Next::Wait), "no value can be read");
            faults.come_back();
            let sent = tokio::time::timeout(Duration::from_secs(60), notify.notified()).await;
            assert!(sent.is_ok(), "the value is sent");
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            ended = values.run(CancellationToken::new()) => panic!("{ended:?}"),
            () = coming => {}
        }
        let Next::Direct(direct, cursor) = hub.next(1) else { panic!("two values") };
        let mut frames: Vec<_> = direct.iter().map(|one| one.frame(&cursor).to_string()).collect();
        frames.sort();
        assert_eq!(
            frames,
            [
                r#"{"type":"presence","cursor":".0-0","user":"ben","online":false}"#,
                r#"{"type":"state","state":{}}"#
            ]
        );
    }

    #[test]
    fn a_presence_has_the_frame_of_the_protocol() {
        for (user, since_ms) in [("ann", Some(1_764_201_600_000)), ("a \"b\"", None)] {
            let frame = format!(r#"{{"type":"presence","cursor":"e.1-0",{}}}"#, fields(user, since_ms));
            let ServerMessage::Presence(presence) = ServerMessage::parse(&frame).unwrap() else {
                panic!("{frame}")
            };
            assert_eq!((presence.user.as_str(), presence.online), (user, since_ms.is_some()));
            assert_eq!(presence.since.is_some(), since_ms.is_some());
        }
    }
}
