//! Reads the states of users when they are due, and has them told.

use std::sync::Arc;
use std::time::Duration;

use carillon_broker::{Broker, BrokerError};
use carillon_protocol::Backoff;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::metrics;

/// States that are read at the same time. The next are read when these are told, so that no older state of
/// a user is told after a newer one; changes meanwhile become one.
const READS_MAX: usize = 32;
/// The longest pause after a read that Redis did not answer.
const RETRY_CAP_MS: u64 = 1_000;

pub(crate) struct States {
    pub(crate) broker: Broker,
    pub(crate) hub: Arc<Hub>,
}

impl States {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = self.read() => anyhow::bail!("the states are read no more"),
        }
    }

    async fn read(&self) {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            let due = self.hub.states_due(READS_MAX);
            if due.is_empty() {
                self.hub.states_wanted().await;
                continue;
            }
            let states = join_all(due.iter().map(|(user, _)| self.broker.state(user))).await;
            let mut away = false;
            for ((user, whom), state) in due.iter().zip(states) {
                match state {
                    Ok(state) => {
                        metrics::state_read();
                        self.hub.tell_state(user, &serde_json::json!(state).to_string(), *whom);
                    }
                    Err(BrokerError::Away(_)) => {
                        self.hub.state_is_due(user, *whom);
                        away = true;
                    }
                    Err(error) => {
                        metrics::state_failed();
                        tracing::warn!(%error, "the state of a user cannot be read, and is not told");
                    }
                }
            }
            if away {
                tokio::time::sleep(Duration::from_millis(backoff.next_ms(fastrand::f64()))).await;
            } else {
                backoff.reset();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use carillon_broker::{Event, FanOut, Subscriptions};
    use carillon_protocol::{Audience, Cursor, Position};
    use tokio::sync::Notify;

    use super::*;
    use crate::hub::Take;

    #[tokio::test(start_paused = true)]
    async fn a_state_that_cannot_be_had_is_told_when_redis_is_back() {
        let (broker, faults) = Broker::memory(Arc::new(|| 1));
        let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
        let (ann, notify) = (Audience::User("ann".into()), Arc::<Notify>::default());
        hub.join(1, from_ref(&ann).into(), &notify);
        let tail = Cursor { epoch: "e".into(), position: Position::ZERO };
        hub.hear_programs(&Event::Subscribed { audiences: vec![ann], tail });
        faults.go_away();
        let states = States { broker, hub: Arc::clone(&hub) };
        let coming = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(matches!(hub.take(1), Take::Wait), "nothing can be told");
            faults.come_back();
            let told = tokio::time::timeout(Duration::from_secs(60), notify.notified()).await;
            assert!(told.is_ok(), "it is told in the end");
        };
        tokio::select! {
            ended = states.run(CancellationToken::new()) => panic!("{ended:?}"),
            () = coming => {}
        }
        let Take::Direct(direct, cursor) = hub.take(1) else { panic!("a state") };
        assert_eq!(&*direct[0].frame(&cursor), r#"{"type":"state","state":{}}"#);
    }
}
