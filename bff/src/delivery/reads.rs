//! Bounds the reads of history that run at once. Each holds the answer of Redis until it is decoded, so they need a bound
//! beside that of the pages made from them.

use std::time::Duration;

use carillon_broker::{Broker, BrokerError, History};
use carillon_protocol::{Audience, Cursor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::metrics::{self, Limit};

/// Maximum reads at the same time. Redis runs them one after the other, so more would not be faster.
const READS_MAX: usize = 32;
/// How long a read waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads history, at most [`READS_MAX`] reads at a time.
pub(crate) struct Reads {
    broker: Broker,
    turns: Semaphore,
}

impl Reads {
    pub(crate) fn new(broker: Broker) -> Self {
        Self { broker, turns: Semaphore::new(READS_MAX) }
    }

    /// Calls [`Broker::history_within`] when it is its turn.
    pub(crate) async fn after(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
        max_bytes: usize,
    ) -> Result<History, BrokerError> {
        self.counted(self.broker.history_within(audiences, since, limit, max_bytes)).await
    }

    /// Calls [`Broker::history_before`] when it is its turn.
    pub(crate) async fn before(
        &self,
        audiences: &[Audience],
        before: Option<&Cursor>,
        limit: usize,
    ) -> Result<History, BrokerError> {
        self.counted(self.broker.history_before(audiences, before, limit)).await
    }

    async fn counted(
        &self,
        read: impl Future<Output = Result<History, BrokerError>>,
    ) -> Result<History, BrokerError> {
        let _turn = self.turn().await?;
        metrics::history_read();
        let history = read.await?;
        metrics::history_unreadable(history.unreadable);
        Ok(history)
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, BrokerError> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        metrics::limit_reached(Limit::HistoryReads);
        let turn = timeout(TURN_TIMEOUT, self.turns.acquire()).await;
        turn.ok()
            .and_then(Result::ok)
            .ok_or_else(|| BrokerError::Away("too many reads of history run at this moment".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use carillon_broker::limits::READ_MAX_BYTES;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_for_its_turn_with_a_timeout() {
        let (broker, _faults) = Broker::memory(Arc::new(|| 0));
        let here = broker.tail().await.unwrap();
        let reads = Reads::new(broker);
        let everyone = [Audience::Everyone];
        let after = || reads.after(&everyone, &here, 1, READ_MAX_BYTES);
        let before = || reads.before(&everyone, None, 1);
        assert!(after().await.is_ok() && before().await.is_ok());
        let mut turns = vec![];
        for _ in 0..READS_MAX {
            turns.push(reads.turn().await.unwrap());
        }
        let away = |read: Result<History, BrokerError>| matches!(read, Err(BrokerError::Away(_)));
        assert!(away(after().await) && away(before().await));
        let giving = async {
            tokio::time::sleep(TURN_TIMEOUT / 2).await;
            turns.pop();
        };
        let (read, ()) = tokio::join!(after(), giving);
        assert!(read.is_ok());
    }
}
