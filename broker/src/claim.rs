//! The list, and the claim that takes entries from it: each entry once, whichever replica claims it.

use std::sync::LazyLock;

use carillon_protocol::Audience;
use carillon_protocol::limits::{ENTRY_MAX_BYTES, NAME_MAX_BYTES};
use redis::Script;

use crate::engine::{appending_script, position, text};
use crate::limits::{BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, IDS_KEEP_MS, IDS_MAX};
use crate::{Broker, BrokerError, EntryKind, FanOut, Stored};

/// The entries that one claim took from the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The epoch of the positions.
    pub epoch: String,
    /// Entries that still wait.
    pub waiting: u64,
    /// Entries that were dropped because their id was claimed before.
    pub repeated: u64,
    /// Entries that the claim itself wrote to the dead list.
    pub refused: Vec<Refused>,
    /// Entries that are now in history and published, in order.
    pub claimed: Vec<Claimed>,
    /// Errors of Redis after the entries were in history, such as a refused PUBLISH, in its words.
    pub faults: Vec<String>,
}

impl Batch {
    /// Entries that were taken from the list: claimed, repeated or refused.
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
    /// The audience that it is for.
    pub audience: Audience,
    /// The entry.
    pub stored: Stored,
    /// The form of its sender and id that is remembered, so that a repeat is dropped; empty where it has no id.
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
    /// Pushes entries, oldest first, and wakes the replicas, in one round trip. Returns how many entries wait now.
    /// Repeating it is harmless for entries with an id.
    pub async fn push(&self, entries: &[Vec<u8>]) -> Result<u64, BrokerError> {
        if entries.is_empty() {
            return self.waiting().await;
        }
        // Two commands that are sent together and no pipeline, in which redis-rs hides the code of an error: a full Redis
        // must be told apart from one that refuses.
        let (mut push, mut wake) = (redis::cmd("LPUSH"), redis::cmd("PUBLISH"));
        push.arg(self.0.names().list()).arg(entries);
        wake.arg(self.0.names().channel()).arg("new");
        let (waiting, woken) = tokio::join!(self.0.run::<u64>(&push), self.0.run::<u64>(&wake));
        if let (Ok(_), Err(error)) = (&waiting, woken) {
            // Replicas read the list from time to time without a wake-up too.
            tracing::debug!(%error, "Redis refused to publish a wake-up");
        }
        waiting
    }

    /// Returns how many entries wait in the list.
    pub async fn waiting(&self) -> Result<u64, BrokerError> {
        let mut command = redis::cmd("LLEN");
        command.arg(self.0.names().list());
        self.0.read(&command).await
    }

    /// Takes one batch from the list for `replica`. In [`FanOut::All`] an error loses no entry: a batch that was taken is
    /// in history.
    pub async fn claim(&self, replica: &str, fan_out: FanOut) -> Result<Batch, BrokerError> {
        let names = self.0.names();
        let mut call = self.0.appending(&CLAIM, replica, fan_out);
        call.key(names.list()).key(names.ids("a")).key(names.ids("b")).key(names.fanout_mode());
        call.arg(BATCH_MAX_ENTRIES).arg(BATCH_MAX_BYTES).arg(ENTRY_MAX_BYTES);
        call.arg(IDS_KEEP_MS).arg(IDS_MAX / 2).arg(NAME_MAX_BYTES);
        type Answer = (String, u64, u64, Vec<String>, Vec<Vec<u8>>, Vec<String>);
        let (epoch, waiting, repeated, refused, claimed, faults): Answer = self.0.eval(&call).await?;
        let refused = refused
            .chunks_exact(2)
            .map(|pair| Refused { reason: pair[0].clone(), detail: pair[1].clone() })
            .collect();
        let claimed = claimed.chunks_exact(5).map(claimed_entry).collect::<Result<_, _>>()?;
        Ok(Batch { epoch, waiting, repeated, refused, claimed, faults })
    }
}

/// Reads `position, prev, audience, remembered, raw` of claim.lua.
fn claimed_entry(fields: &[Vec<u8>]) -> Result<Claimed, BrokerError> {
    // claim.lua lets a name pass that is not UTF-8. The strict reading refuses the entry later; until then it must not
    // make the rest of its batch unreadable.
    let audience = text(&fields[2]).parse().unwrap_or_default();
    let stored = Stored {
        position: position(&fields[0])?,
        prev: position(&fields[1])?,
        kind: EntryKind::Notification,
        raw: fields[4].clone(),
    };
    Ok(Claimed { audience, stored, remembered: fields[3].clone() })
}
