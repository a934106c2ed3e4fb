//! The list: what is pushed to it, and the claim that takes from it, once, whichever replica asks.

use std::sync::LazyLock;

use carillon_protocol::limits::{ENTRY_MAX_BYTES, NAME_MAX_BYTES};
use carillon_protocol::{Audience, Position};
use redis::Script;

use crate::engine::{Engine, appending_script, text};
use crate::history::position;
use crate::limits::{BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, IDS_KEEP_MS, IDS_MAX};
use crate::{Broker, BrokerError, Kind, Stored};

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
    /// The word in options and in the scripts.
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
    /// What is kept of its sender and id, to drop a repeat; empty where it has no id.
    pub remembered: Vec<u8>,
}

static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    appending_script(&[
        include_str!("dead/dead.lua"),
        include_str!("ledger/status.lua"),
        include_str!("claim/claim.lua"),
    ])
});

impl Broker {
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
        let mut command = redis::cmd("LLEN");
        command.arg(self.0.names().list());
        self.0.read(&command).await
    }

    /// Takes one batch from the list for `replica`.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done; in [`FanOut::All`] nothing is lost either way.
    pub async fn claim(&self, replica: &str, fan_out: FanOut) -> Result<Batch, BrokerError> {
        self.0.claim(replica, fan_out).await
    }
}

impl Engine {
    /// LPUSH and PUBLISH in one round trip. They are two commands and no pipeline, in which redis-rs hides the code of an
    /// error: a full Redis must be told apart from one that refuses.
    async fn push(&self, entries: &[Vec<u8>]) -> Result<u64, BrokerError> {
        let (mut push, mut wake) = (redis::cmd("LPUSH"), redis::cmd("PUBLISH"));
        push.arg(self.names().list()).arg(entries);
        wake.arg(self.names().channel()).arg("new");
        let (waiting, woken) = tokio::join!(self.run::<u64>(&push), self.run::<u64>(&wake));
        if let (Ok(_), Err(error)) = (&waiting, woken) {
            // Replicas look at the list by themselves too.
            tracing::debug!(%error, "a wake-up was not published");
        }
        waiting
    }

    async fn claim(&self, replica: &str, fan_out: FanOut) -> Result<Batch, BrokerError> {
        let names = self.names();
        let mut call = self.appending(&CLAIM, replica, fan_out);
        call.key(names.list()).key(names.ids("a")).key(names.ids("b")).key(names.fanout_mode());
        call.arg(BATCH_MAX_ENTRIES).arg(BATCH_MAX_BYTES).arg(ENTRY_MAX_BYTES);
        call.arg(IDS_KEEP_MS).arg(IDS_MAX / 2).arg(NAME_MAX_BYTES);
        type Answer = (String, u64, u64, Vec<String>, Vec<Vec<u8>>, Vec<String>);
        let (epoch, waiting, repeated, refused, claimed, faults): Answer = self.eval(&call).await?;
        let refused = refused
            .chunks_exact(2)
            .map(|pair| Refused { reason: pair[0].clone(), detail: pair[1].clone() })
            .collect();
        let claimed = claimed.chunks_exact(5).map(claimed_entry).collect::<Result<_, _>>()?;
        Ok(Batch { epoch, waiting, repeated, refused, claimed, faults })
    }
}

/// From `position, prev, audience, remembered, raw` of claim.lua.
fn claimed_entry(fields: &[Vec<u8>]) -> Result<Claimed, BrokerError> {
    // A name that is not UTF-8 passes the script. The strict reading refuses the entry; until then it must
    // not take the rest of its batch with it.
    let audience = text(&fields[2]).parse().unwrap_or_default();
    let (position, prev): (Position, Position) = (position(&fields[0])?, position(&fields[1])?);
    let stored = Stored { position, prev, kind: Kind::Notification, raw: fields[4].clone() };
    Ok(Claimed { audience, stored, remembered: fields[3].clone() })
}
