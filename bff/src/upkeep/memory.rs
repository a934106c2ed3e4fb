//! Watches how full Redis is. Before it is full, and refuses every write, this service stores no more of what users send
//! and makes room in the histories.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use carillon_broker::{Broker, BrokerError, MemoryUse};
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Limit};
use crate::refusal::Refusal;

/// Redis is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// From this part of `maxmemory` on, in percent, nothing more is stored for users and jobs. Producers go on.
const REFUSE_FROM_PERCENT: u32 = 80;
/// From here on, what is too old goes from all histories, also from those that nothing is added to.
const TRIM_FROM_PERCENT: u32 = 85;
/// From here on, each history loses the older half of its entries.
const HALVE_FROM_PERCENT: u32 = 95;
/// All histories are gone through at most this often, by one replica of all: what fills Redis may be somebody else's.
const PASS_EVERY: Duration = Duration::from_secs(60);
/// Between two steps of a pass, each of which looks at some keys, Redis serves others for this long.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// Seconds after which somebody who was refused is asked to come back.
const RETRY_SECONDS: u64 = 30;

/// How full Redis is, as this replica last saw it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    percent: AtomicU32,
}

impl Memory {
    /// Refuses what is stored for a user or a job while Redis is almost full.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let percent = self.percent.load(Ordering::Relaxed);
        if percent < REFUSE_FROM_PERCENT {
            return Ok(());
        }
        metrics::limit_reached(Limit::RedisMemory);
        let detail = format!("Redis uses {percent} % of its memory: nothing more is stored for users now");
        Err(Refusal::unavailable("Redis almost full", detail, RETRY_SECONDS))
    }

    pub(crate) async fn run(self: Arc<Self>, broker: Broker, stop: CancellationToken) -> anyhow::Result<()> {
        let watching = async {
            loop {
                match self.look(&broker).await {
                    Ok(percent) => {
                        if percent >= TRIM_FROM_PERCENT
                            && let Err(error) = self.trim(&broker).await
                        {
                            tracing::warn!(%error, "histories cannot be trimmed");
                        }
                    }
                    // A user of Redis may have no right to INFO: then its refusals are all that is known.
                    Err(error) => tracing::debug!(%error, "it is not known how full Redis is"),
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = watching => Ok(()),
        }
    }

    async fn look(&self, broker: &Broker) -> Result<u32, BrokerError> {
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

    /// Goes once through all histories, while it is needed, unless another replica has just done so or does.
    async fn trim(&self, broker: &Broker) -> Result<(), BrokerError> {
        let (mut cursor, mut entries) = ("0".to_owned(), 0);
        loop {
            let percent = self.look(broker).await?;
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
        tracing::warn!(entries, "entries of history were removed, since Redis is almost full");
        Ok(())
    }
}

fn percent(memory: MemoryUse) -> u32 {
    // From 0 to little more than 100: Redis may pass its limit by a command.
    (memory.share() * 100.0) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use carillon_broker::{FanOut, Settings};

    use super::*;

    #[tokio::test]
    async fn of_all_replicas_one_halves_the_histories_in_a_period() {
        let passed_ms = Arc::new(AtomicU64::new(1_800_000_000_000));
        let now = Arc::clone(&passed_ms);
        let (broker, faults) = Broker::memory(Arc::new(move || now.load(Ordering::Relaxed)));
        let pass =
            |time: Duration| passed_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        let entries: Vec<_> = (0..64).map(|n| format!(r#"{{"body":"{n}"}}"#).into_bytes()).collect();
        broker.push(&entries).await.unwrap();
        broker.claim("bff", FanOut::All).await.unwrap();
        // The first pass, before it is full, has found nothing.
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
    fn what_is_stored_for_users_is_refused_before_redis_is_full() {
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
