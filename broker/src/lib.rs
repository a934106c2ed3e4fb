//! The only crate that knows Redis: the list of entries, the atomic claim, history, fan-out and the dead lists.
//! [`Broker::redis`] connects to a server; `Broker::memory` runs the same scripts inside this process, for the demo and for
//! fast tests.
//!
//! Each noun is a file: its types, its scripts, the methods of [`Broker`], and how their answers are read. Its Lua is in the
//! folder of its name.

mod claim;
mod dead;
mod engine;
mod error;
mod fan_out;
mod history;
mod jobs;
mod ledger;
pub mod limits;
mod memory_use;
mod names;
mod once;
mod outbox;
mod presence;
mod retention;
mod revocations;
mod session_key;
mod state;

use std::sync::Arc;

pub use claim::{Batch, Claimed, Refused};
pub use dead::{Dead, DeadList};
#[cfg(feature = "memory")]
pub use engine::memory::{Clock, Delay, Faults, Link};
pub use error::BrokerError;
pub use fan_out::{BrokerEvent, EntryKind, FanOut, Fanout, Stored, Subscriptions, channel_audience};
pub use history::{Gap, History, Recalled};
pub use jobs::{EnqueueError, Job, Lease, NewJob, Taken, job_handle};
pub use ledger::{Accepted, Message, MessageRef, NewMessage, Writing};
pub use memory_use::{MemoryUse, Trimmed};
pub use names::Names;
pub use outbox::{GivenUp, OutboxError, Outgoing, Speaker, UNDELIVERABLE};
pub use presence::{Beat, Beaten, Presence};
pub use retention::{Keep, Retention};
pub use revocations::Revocation;
pub use state::State;

use engine::Engine;

/// The settings of a broker, besides the URL of its Redis.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The names in Redis.
    pub names: Names,
    /// How much history is kept of each audience.
    pub retention: Retention,
    /// Bytes that one user may store in a day by sending, on all replicas together.
    pub stored_bytes_per_day: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            names: Names::default(),
            retention: Retention::default(),
            stored_bytes_per_day: 20 * 1_024 * 1_024,
        }
    }
}

impl From<Names> for Settings {
    fn from(names: Names) -> Self {
        Self { names, ..Self::default() }
    }
}

/// The list, history, fan-out and everything else in one Redis. Cheap to clone.
#[derive(Clone)]
pub struct Broker(Arc<Engine>);

impl Broker {
    /// A broker over the Redis server at `url` (`redis://`, `rediss://`, `unix://`). It connects when it is first used.
    /// `?ca=PATH` trusts the authorities of that file in place of the public ones.
    ///
    /// # Errors
    /// [`BrokerError::Url`] when the URL, or the file that it names, cannot be used.
    pub fn redis(url: &str, settings: impl Into<Settings>) -> Result<Self, BrokerError> {
        Ok(Self(Arc::new(Engine::new(url, settings.into())?)))
    }

    /// A broker inside this process, with a clock in milliseconds since 1970, and the faults that tests inject.
    #[cfg(feature = "memory")]
    pub fn memory(clock: Clock) -> (Self, Faults) {
        Self::memory_with(clock, Settings::default())
    }

    /// [`Broker::memory`] with settings other than the default.
    #[cfg(feature = "memory")]
    pub fn memory_with(clock: Clock, settings: Settings) -> (Self, Faults) {
        let server = engine::memory::Server::new(clock);
        (Self(Arc::new(Engine::memory(server.clone(), settings))), Faults::new(server))
    }

    /// Logs a warning when Redis may evict keys, which would lose entries silently.
    pub async fn check_policy(&self) {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("maxmemory-policy");
        match self.0.read::<Vec<String>>(&command).await.map(|answer| answer.into_iter().nth(1)) {
            Ok(Some(policy)) if policy != "noeviction" => {
                tracing::warn!(redis.maxmemory_policy = %policy, "Redis may evict notifications: set maxmemory-policy noeviction");
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "Redis did not answer for its maxmemory-policy"),
        }
    }
}
