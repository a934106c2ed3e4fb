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
