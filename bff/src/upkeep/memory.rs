//! Watches the memory use of Redis. Before Redis is full and refuses every write, this service stops storing what users
//! send, and makes room in the histories.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use carillon_broker::{Broker, BrokerError, MemoryUse};
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Limit};
use crate::refusal::Refusal;

/// The interval of queries of the memory use.
const QUERY_EVERY: Duration = Duration::from_secs(5);
/// From this percentage of `maxmemory` on, nothing more is stored for users and jobs. Producers may continue.
const REFUSE_FROM_PERCENT: u32 = 80;
/// From here on, expired entries are removed from all histories, including those without new entries.
const TRIM_FROM_PERCENT: u32 = 85;
/// From here on, the older half of each history is removed.
const HALVE_FROM_PERCENT: u32 = 95;
/// The shortest time between two passes over all histories, by one replica of all: another program may be what fills Redis.
const PASS_EVERY: Duration = Duration::from_secs(60);
/// The pause between two steps of a pass, in which Redis serves other clients.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// The `Retry-After` of a refusal, in seconds.
const RETRY_SECONDS: u64 = 30;

/// The memory use of Redis at the last query of this replica.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    percent: AtomicU32,
}

impl Memory {
    /// Refuses a write for a user or a job while Redis is almost full.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let percent = self.percent.load(Ordering::Relaxed);
        if percent < REFUSE_FROM_PERCENT {
            return Ok(());
        }
        metrics::limit_reached(Limit::RedisMemory);
        let detail =
            format!("Redis uses {percent} % of its memory: nothing more is stored for users for now");
        Err(Refusal::unavailable("Redis almost full", detail, RETRY_SECONDS))
    }

    pub(crate) async fn run(self: Arc<Self>, broker: Broker, stop: CancellationToken) -> anyhow::Result<()> {
        let watching = async {
            loop {
                match self.query(&broker).await {
                    Ok(percent) => {
                        if percent >= TRIM_FROM_PERCENT
                            && let Err(error) = self.trim(&broker).await
                        {
                            tracing::warn!(%error, "cannot trim histories");
                        }
                    }
                    // The Redis user may lack the right to INFO: then only refused writes show that Redis is full.
                    Err(error) => tracing::debug!(%error, "cannot query the memory use of Redis"),
                }
                tokio::time::sleep(QUERY_EVERY).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = watching => Ok(()),
        }
    }

    async fn query(&self, broker: &Broker) -> Result<u32, BrokerError> {
        let percent = percent(broker.memory_use().await?);
        let before = self.percent.swap(percent, Ordering::Relaxed);
        if percent >= REFUSE_FROM_PERCENT && before < REFUSE_FROM_PERCENT {
            tracing::warn!(
                redis.memory_percent = percent,
                "Redis is almost full; nothing more is stored for users"
            );
        } else if percent < REFUSE_FROM_PERCENT && before >= REFUSE_FROM_PERCENT {
            tracing::info!(redis.memory_percent = percent, "Redis has room again");
        }
        Ok(percent)
    }

    /// Makes one pass over all histories while it is needed, unless another replica is making one or has just made one.
    async fn trim(&self, broker: &Broker) -> Result<(), BrokerError> {
        let (mut cursor, mut entries) = ("0".to_owned(), 0);
        loop {
            let percent = self.query(broker).await?;
            if percent < TRIM_FROM_PERCENT {
                break;
            }
            let share = if percent >= HALVE_FROM_PERCENT { 0.5 } else { 1.0 };
            let Some(trimmed) = broker.trim(&cursor, share, PASS_EVERY).await? else { return Ok(()) };
            entries += trimmed.entries;
            cursor = trimmed.cursor;
            if cursor == "0" {
                break;
            }
            tokio::time::sleep(STEP_PAUSE).await;
        }
        metrics::history_trimmed(entries);
        tracing::warn!(entries, "removed entries of history because Redis is almost full");
        Ok(())
    }
}

fn percent(memory: MemoryUse) -> u32 {
    // From 0 to slightly above 100: a command may take Redis above its limit.
    (memory.share() * 100.0) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use carillon_broker::{FanOut, Settings};

    use super::*;

    #[tokio::test]
    async fn one_replica_halves_the_histories_in_a_period() {
        let passed_ms = Arc::new(AtomicU64::new(1_800_000_000_000));
        let now = Arc::clone(&passed_ms);
        let (broker, faults) = Broker::memory(Arc::new(move || now.load(Ordering::Relaxed)));
        let pass =
            |time: Duration| passed_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        let entries: Vec<_> = (0..64).map(|n| format!(r#"{{"body":"{n}"}}"#).into_bytes()).collect();
        broker.push(&entries).await.unwrap();
        broker.claim("bff", FanOut::All).await.unwrap();
        // The first pass, before Redis is full, removes nothing.
        broker.trim("0", 1.0, PASS_EVERY).await.unwrap();
        faults.fill(true);
        let replicas = [broker, faults.again(Settings::default()), faults.again(Settings::default())];
        let left = async || {
            for replica in &replicas {
                Memory::default().trim(replica).await.unwrap();
            }
            faults.run(&["XLEN", "{Notification-List}:history:everyone"])
        };
        assert_eq!(left().await, "64", "within the period of the first");
        pass(PASS_EVERY);
        assert_eq!(left().await, "32");
        pass(PASS_EVERY - Duration::from_millis(1));
        assert_eq!(left().await, "32");
        pass(Duration::from_millis(1));
        assert_eq!(left().await, "16");
    }

    #[test]
    fn writes_for_users_are_refused_before_redis_is_full() {
        let memory = Memory::default();
        for (used, most, status) in
            [(99, 0, None), (79, 100, None), (80, 100, Some(503)), (120, 100, Some(503))]
        {
            memory.percent.store(percent(MemoryUse { used, most }), Ordering::Relaxed);
            let refused = memory.check().err().map(|refusal| refusal.status().as_u16());
            assert_eq!(refused, status, "{used} of {most}");
        }
    }
}
