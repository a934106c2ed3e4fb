use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carillon_protocol::{Audience, Cursor, Position};
use tokio::sync::Notify;

use crate::Revocation;

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// From the list, in its producer's bytes. All others are JSON objects that this service wrote, with
    /// the fields of the frame of their name except `type` and `cursor`.
    #[default]
    Notification,
    /// What became of a message that the reader sent.
    Status,
    /// How far the reader has read, on whichever device.
    Read,
    /// A user came or went.
    Presence,
    /// A kind of a later version, which is stepped over.
    Unknown,
}

impl Kind {
    /// The word in history and fan-out, which is also the type of the frame.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notification => "notification",
            Self::Status => "status",
            Self::Read => "read",
            Self::Presence => "presence",
            Self::Unknown => "unknown",
        }
    }

    /// The kind of a word.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        let known = [Self::Notification, Self::Status, Self::Read, Self::Presence];
        known.into_iter().find(|kind| kind.as_str() == word).unwrap_or(Self::Unknown)
    }
}

/// An entry as it was appended, in its own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the whole sequence.
    pub position: Position,
    /// The position of the entry before it in the same audience; zero where there is none.
    pub prev: Position,
    /// What it is.
    pub kind: Kind,
    /// What the producer pushed, or the fields of a frame: see [`Kind`].
    pub raw: Vec<u8>,
}

/// Entries of one audience, in order, as they are published to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// Whom they are for: see [`heard_as`].
    pub audience: Audience,
    /// The epoch of their positions.
    pub epoch: String,
    /// The replica that claimed them.
    pub claimed_by: String,
    /// At least one.
    pub entries: Vec<Stored>,
}

/// The audience under which a listener hears what is for `audience`: itself, but for a connection the run
/// that holds it, its name less the last dash and what follows. So a replica listens for all its connections
/// at once, and an entry's own `to` tells which it is for.
#[must_use]
pub fn heard_as(audience: &Audience) -> Audience {
    match audience {
        Audience::Connection(name) => match name.rsplit_once('-') {
            Some((run, _)) if !run.is_empty() => Audience::Connection(run.to_owned()),
            _ => audience.clone(),
        },
        _ => audience.clone(),
    }
}

/// What a replica hears from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection is there, or there again; the subscriptions follow. Whatever was said before is missed.
    Up,
    /// The connection is lost: nothing is heard until the next [`Event::Up`].
    Down,
    /// From `tail` on, everything for these audiences will be heard.
    Subscribed {
        /// The audiences, now confirmed.
        audiences: Vec<Audience>,
        /// The last position given out at a moment after the confirmation.
        tail: Cursor,
    },
    /// The list may have something.
    Wake,
    /// Something for an audience.
    Fanout(Fanout),
    /// Tokens were called back.
    Revoked(Revocation),
    /// Some program said this to a user who is listened for. There is no history of it.
    Raw {
        /// The user.
        user: String,
        /// Any bytes.
        data: Vec<u8>,
    },
    /// The state of a user who is listened for may be another now.
    StateChanged {
        /// The user.
        user: String,
    },
}

/// The audiences that a replica has readers for. The listener brings Redis into line with it, so
/// that a burst of joins and leaves becomes one command each way.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Wanted {
    audiences: Generations,
    added: u64,
}

/// Audiences, each with a number of its own for every time that it was added. One that was removed and
/// added again before the listener looked has a new number, and is confirmed anew.
pub(crate) type Generations = BTreeMap<Audience, u64>;

impl Subscriptions {
    /// Listens for an audience, and with a user for what other programs say of them. Adding one that is there already confirms it anew.
    pub fn add(&self, audience: Audience) {
        let mut wanted = self.lock();
        wanted.added += 1;
        let generation = wanted.added;
        wanted.audiences.insert(audience, generation);
        self.shared.changed.notify_one();
    }

    /// Listens for it no more.
    pub fn remove(&self, audience: &Audience) {
        if self.lock().audiences.remove(audience).is_some() {
            self.shared.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wanted(&self) -> Generations {
        self.lock().audiences.clone()
    }

    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

/// The audiences of `wanted` that are not confirmed in the generation that is wanted.
pub(crate) fn unconfirmed(wanted: &Generations, confirmed: &Generations) -> Vec<Audience> {
    let is_new = |(audience, generation): &(&Audience, &u64)| confirmed.get(*audience) != Some(*generation);
    wanted.iter().filter(is_new).map(|(audience, _)| audience.clone()).collect()
}
