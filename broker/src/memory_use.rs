//! How full Redis is, and trimming that needs no claim: a full server refuses every claim, and only claims trim histories
//! otherwise.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Script;

use crate::engine::{milliseconds, sequence_script};
use crate::{Broker, BrokerError};

/// Keys that one trimming reads.
const TRIM_LOOKS_MAX_KEYS: u64 = 128;

/// How much memory a Redis server uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes that are used.
    pub used: u64,
    /// `maxmemory`, in bytes; 0 where there is no limit.
    pub most: u64,
}

impl MemoryUse {
    /// The part of the limit that is used, from 0 to 1; 0 where there is no limit.
    pub fn share(&self) -> f64 {
        if self.most == 0 { 0.0 } else { self.used as f64 / self.most as f64 }
    }
}

/// The result of one trimming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Where the next trimming continues; `"0"` when all keys were read.
    pub cursor: String,
    /// Entries that were removed.
    pub entries: u64,
}

static TRIM: LazyLock<Script> = LazyLock::new(|| {
    sequence_script(&[include_str!("history/keep.lua"), include_str!("memory_use/trim.lua")])
});

impl Broker {
    /// Returns how full Redis is.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] too where our user of Redis has no right to `INFO`.
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
    /// first. It needs no memory. `cursor` is [`Trimmed::cursor`] of the last call, or `"0"` to begin. One that begins
    /// within `every` of the last call by any replica returns `None`, so that one replica goes through all histories and
    /// not each of them.
    pub async fn trim(
        &self,
        cursor: &str,
        share: f64,
        every: Duration,
    ) -> Result<Option<Trimmed>, BrokerError> {
        let (names, retention) = (self.0.names(), &self.0.settings().retention);
        let mut call = TRIM.key(names.sequence());
        call.arg(self.0.call_time()).arg(names.prefix()).arg(retention.to_script());
        call.arg(cursor).arg(TRIM_LOOKS_MAX_KEYS).arg(share.clamp(0.0, 1.0)).arg(milliseconds(every));
        let (cursor, entries): (String, i64) = self.0.eval(&call).await?;
        Ok(u64::try_from(entries).ok().map(|entries| Trimmed { cursor, entries }))
    }
}
