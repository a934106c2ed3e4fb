//! How full Redis is, and what makes room: a full server refuses every claim, and claims are what trims histories.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use crate::engine::sequence_script;
use crate::{Broker, BrokerError};

/// Keys that one trimming looks at.
const TRIM_LOOKS_MAX_KEYS: u64 = 128;

/// How much memory a Redis server uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes in use.
    pub used: u64,
    /// `maxmemory`, in bytes; 0 where there is no limit.
    pub most: u64,
}

/// What one trimming did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Where the next one goes on; `"0"` when all keys were seen.
    pub cursor: String,
    /// Entries that were removed.
    pub entries: u64,
}

static TRIM: LazyLock<Script> = LazyLock::new(|| {
    sequence_script(&[include_str!("history/keep.lua"), include_str!("memory_use/trim.lua")])
});

impl MemoryUse {
    /// The part that is used, from 0 to 1; 0 where there is no limit.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.most == 0 { 0.0 } else { self.used as f64 / self.most as f64 }
    }
}

impl Broker {
    /// How full Redis is.
    ///
    /// # Errors
    /// When Redis is away, or refuses, as it may where the user has no right to `INFO`.
    pub async fn memory_use(&self) -> Result<MemoryUse, BrokerError> {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        let info: String = self.0.read(&command).await?;
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
        };
        Ok(MemoryUse { used: field("used_memory"), most: field("maxmemory") })
    }

    /// Trims some histories to their age and bytes, and where `share` is below 1 to that part of their entries, oldest
    /// first. It needs no memory. `cursor` is where the last one ended, or `"0"` to begin: that is `None` within `every` of
    /// the last call by any replica, so that one of them goes through all histories and not each.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn trim(
        &self,
        cursor: &str,
        share: f64,
        every: Duration,
    ) -> Result<Option<Trimmed>, BrokerError> {
        let mut call = TRIM.key(self.0.names().sequence());
        call.arg(self.0.call_time())
            .arg(self.0.names().prefix())
            .arg(self.0.settings().retention.to_script());
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        call.arg(cursor).arg(TRIM_LOOKS_MAX_KEYS).arg(share.clamp(0.0, 1.0)).arg(every_ms);
        let (cursor, entries): (String, i64) = self.0.eval(&call).await?;
        Ok(u64::try_from(entries).ok().map(|entries| Trimmed { cursor, entries }))
    }
}
