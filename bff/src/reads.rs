//! Reads of history that are under way. Each holds what Redis answers until it is decoded, so that they have a bound of
//! their own, beside that of the pages that come of them.

use std::time::Duration;

use carillon_broker::{Broker, BrokerError, History};
use carillon_protocol::{Audience, Cursor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::metrics::{self, Limit};

/// Reads at the same time. Redis answers one after the other, so that more of them would gain nothing.
const READS_MAX: usize = 32;
/// A read waits this long for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads history, so many reads at a time.
pub(crate) struct Reads {
    broker: Broker,
    turns: Semaphore,
}

impl Reads {
    pub(crate) fn new(broker: Broker) -> Self {
        Self { broker, turns: Semaphore::new(READS_MAX) }
    }

    /// [`Broker::history_within`] in its turn.
    ///
    /// # Errors
    /// When Redis is away or refuses, or the turn does not come.
    pub(crate) async fn after(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
        max_bytes: usize,
    ) -> Result<History, BrokerError> {
        self.counted(self.broker.history_within(audiences, since, limit, max_bytes)).await
    }

    /// [`Broker::history_before`] in its turn.
    ///
    /// # Errors
    /// When Redis is away or refuses, or the turn does not come.
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
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            BrokerError::Away("too many reads of history are under way at this moment".to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use carillon_broker::limits::READ_MAX_BYTES;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_for_its_turn_and_not_for_ever() {
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
