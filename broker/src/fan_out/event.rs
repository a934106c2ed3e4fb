use std::collections::BTreeSet;
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
    /// From `tail` on, everything for these audiences will be received.
    Subscribed {
        /// The audiences, now confirmed, each with the last position of its history at that moment; `None` where it has
        /// none.
        audiences: Vec<(Audience, Option<Position>)>,
        /// The last position given out at a moment after the confirmation.
        tail: Cursor,
    },
    /// What this listener wrote came back to it: everything up to `tail` was received.
    Echo {
        /// The last position given out.
        tail: Cursor,
    },
    /// Whether the server takes writes; in its words why not.
    Writes(Result<(), String>),
    /// Other replicas run now whose claims are seen by others than those of this one: `all` or `own`.
    OtherMode(String),
    /// Something for an audience that this version cannot read.
    Undecodable(Audience),
    /// The list may have something.
    Wake,
    /// Something for an audience.
    Fanout(Fanout),
    /// Tokens were revoked.
    Revoked(Revocation),
    /// Revocations were brought back that Redis had lost: they are to be read again.
    RevocationsRestored,
    /// A user came or went whose presence a reader here follows.
    PresenceChanged {
        /// The user.
        user: String,
    },
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
    audiences: BTreeSet<Audience>,
    /// What was added or removed since the listener last looked, so that a change costs no walk over all.
    changed: BTreeSet<Audience>,
}

/// What a listener has to do to be in line again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// To be subscribed to, or confirmed anew.
    pub(crate) added: Vec<Audience>,
    /// To be left.
    pub(crate) removed: Vec<Audience>,
}

impl Subscriptions {
    /// Listens for an audience, and with a user for what other programs publish for them. Adding one that is there already
    /// confirms it anew.
    pub fn add(&self, audience: Audience) {
        let mut wanted = self.lock();
        wanted.changed.insert(audience.clone());
        wanted.audiences.insert(audience);
        self.shared.changed.notify_one();
    }

    /// Listens for it no more.
    pub fn remove(&self, audience: &Audience) {
        let mut wanted = self.lock();
        if wanted.audiences.remove(audience) {
            wanted.changed.insert(audience.clone());
            self.shared.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is wanted now, for a connection that is subscribed to nothing.
    pub(crate) fn all(&self) -> Difference {
        let mut wanted = self.lock();
        wanted.changed.clear();
        Difference { added: wanted.audiences.iter().cloned().collect(), removed: vec![] }
    }

    /// What has changed since the last look.
    pub(crate) fn difference(&self) -> Difference {
        let mut wanted = self.lock();
        let changed = std::mem::take(&mut wanted.changed);
        let (added, removed) = changed.into_iter().partition(|audience| wanted.audiences.contains(audience));
        Difference { added, removed }
    }

    /// Whether somebody listens for an audience.
    pub(crate) fn has(&self, audience: &Audience) -> bool {
        self.lock().audiences.contains(audience)
    }

    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_costs_what_changed_and_one_that_was_undone_is_confirmed_anew() {
        let topic = |name: &str| Audience::Topic(name.into());
        let subscriptions = Subscriptions::default();
        for name in ["a", "b"] {
            subscriptions.add(topic(name));
        }
        assert_eq!(subscriptions.all().added, [topic("a"), topic("b")]);
        assert_eq!(subscriptions.difference(), Difference::default());
        subscriptions.add(topic("c"));
        subscriptions.remove(&topic("a"));
        subscriptions.remove(&topic("b"));
        subscriptions.add(topic("b"));
        let difference = subscriptions.difference();
        assert_eq!(difference.added, [topic("b"), topic("c")]);
        assert_eq!(difference.removed, [topic("a")]);
        subscriptions.remove(&topic("x"));
        assert_eq!(subscriptions.difference(), Difference::default());
    }
}
