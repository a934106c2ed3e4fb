//! The only crate that knows Redis: the list of entries, the atomic claim, history, fan-out and the
//! dead list. [`Broker::redis`] speaks to a server; `Broker::memory` runs the same scripts inside this process, for the
//! demo and for fast tests.

mod engine;
mod error;
mod event;
mod history;
mod jobs;
mod ledger;
pub mod limits;
mod names;
mod outbox;
mod presence;
mod replay;
mod revocations;
mod state;
mod wire;

use std::sync::Arc;

use carillon_protocol::{Audience, Cursor};

#[cfg(feature = "memory")]
pub use engine::memory::{Clock, Faults};
pub use error::BrokerError;
pub use event::{Event, Fanout, Kind, Stored, Subscriptions, heard_as};
pub use history::{History, Recalled};
pub use jobs::{EnqueueError, Held, Job, NewJob, Taken};
pub use ledger::{Accepted, Message, NewMessage, Writing};
pub use names::Names;
pub use outbox::{Due, OutboxError, Outgoing, UNDELIVERABLE};
pub use presence::{Beat, Beaten, Presence};
pub use revocations::Revocation;
pub use state::State;

use engine::Engine;

/// Who sees a claimed notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FanOut {
    /// The readers of every replica, with history and resume.
    #[default]
    All,
    /// The readers of the replica that won it, live only: nothing is kept or published.
    Own,
}

impl FanOut {
    /// The word in options and in claim.lua.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Own => "own",
        }
    }
}

/// What one claim took from the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The epoch of the positions.
    pub epoch: String,
    /// Entries that still wait.
    pub waiting: u64,
    /// Entries that were dropped, since their id came before.
    pub repeated: u64,
    /// Entries that the claim itself wrote to the dead list.
    pub refused: Vec<Refused>,
    /// Entries that are now in history and published, in order.
    pub claimed: Vec<Claimed>,
    /// What Redis refused after the entries were in history, such as to publish them, in its words.
    pub faults: Vec<String>,
}

impl Batch {
    /// Entries that were taken, whatever became of them.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.repeated + (self.refused.len() + self.claimed.len()) as u64
    }
}

/// Why an entry went to the dead list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// A word: see [`carillon_protocol::RefusalReason`].
    pub reason: String,
    /// A sentence.
    pub detail: String,
}

/// An entry that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Whom it is for.
    pub audience: Audience,
    /// The entry.
    pub stored: Stored,
}

/// An entry of the dead list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// A word: see [`carillon_protocol::RefusalReason`].
    pub reason: String,
    /// A sentence.
    pub detail: String,
    /// The replica that took it.
    pub claimed_by: String,
    /// Its bytes, of which [`limits::DEAD_RAW_MAX_BYTES`] are kept.
    pub raw: Vec<u8>,
}

/// The way to the list, history and fan-out. Cheap to clone.
#[derive(Clone)]
pub struct Broker(Arc<Engine>);

impl Broker {
    /// A broker over the Redis server at `url` (`redis://`, `rediss://`, `unix://`). It connects when it
    /// is first used. `?ca=PATH` trusts the authorities of that file, and not the public ones.
    ///
    /// # Errors
    /// When the URL, or the file that it names, cannot be used.
    pub fn redis(url: &str, names: Names) -> Result<Self, BrokerError> {
        Ok(Self(Arc::new(Engine::new(url, names)?)))
    }

    /// A broker inside this process, by a clock in milliseconds since 1970, with the levers that tests
    /// break it with.
    #[cfg(feature = "memory")]
    #[must_use]
    pub fn memory(clock: Clock) -> (Self, Faults) {
        let server = engine::memory::Server::new(clock);
        (Self(Arc::new(Engine::memory(server.clone()))), Faults::new(server))
    }

    /// Pushes entries, oldest first, and wakes the replicas, in one round trip. Returns how many wait now.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done: pushing again is harmless for entries with an id.
    pub async fn push(&self, entries: &[Vec<u8>]) -> Result<u64, BrokerError> {
        if entries.is_empty() {
            return self.waiting().await;
        }
        self.0.push(entries).await
    }

    /// How many entries wait in the list.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn waiting(&self) -> Result<u64, BrokerError> {
        self.0.waiting().await
    }

    /// Takes one batch from the list for `replica`.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done; in [`FanOut::All`] nothing is lost either way.
    pub async fn claim(&self, replica: &str, fan_out: FanOut) -> Result<Batch, BrokerError> {
        self.0.claim(replica, fan_out).await
    }

    /// Writes an entry to the dead list that was claimed and turned out to be no notification.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn bury(&self, dead: &Dead) -> Result<(), BrokerError> {
        self.0.bury(dead).await
    }

    /// The dead list, oldest first.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn dead(&self) -> Result<Vec<Dead>, BrokerError> {
        self.0.dead().await
    }

    /// The current epoch and the last position that was given out.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn tail(&self) -> Result<Cursor, BrokerError> {
        self.0.tail().await
    }

    /// Reads on from a cursor, from 1 to `limit` entries and never more than [`limits::READ_MAX_ENTRIES`].
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn history(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
    ) -> Result<History, BrokerError> {
        self.0.history(audiences, since, limit).await
    }

    /// Reports what happens, for ever, to a function that must not block. Ends only by being dropped.
    pub async fn listen(&self, subscriptions: &Subscriptions, on: impl FnMut(Event)) {
        engine::listen::listen(&self.0, subscriptions, on).await;
    }

    /// Warns in the log when Redis may evict keys, which would lose entries without a word.
    pub async fn check_policy(&self) {
        match self.0.check_policy().await {
            Ok(Some(policy)) if policy != "noeviction" => {
                tracing::warn!(redis.maxmemory_policy = %policy, "Redis may evict notifications: set maxmemory-policy noeviction");
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "Redis does not tell its maxmemory-policy"),
        }
    }
}
