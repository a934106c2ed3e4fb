use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use carillon_protocol::{Audience, Cursor, Position};
use tokio::sync::Notify;

/// An entry as it was claimed, in its own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the whole sequence.
    pub position: Position,
    /// The position of the entry before it in the same audience; zero where there is none.
    pub prev: Position,
    /// What the producer pushed.
    pub raw: Vec<u8>,
}

/// Entries of one audience, in order, as they are published to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// Whom they are for.
    pub audience: Audience,
    /// The epoch of their positions.
    pub epoch: String,
    /// The replica that claimed them.
    pub claimed_by: String,
    /// At least one.
    pub entries: Vec<Stored>,
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
}

/// The audiences that a replica has readers for. The listener brings Redis into line with it, so
/// that a burst of joins and leaves becomes one command each way.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    wanted: Mutex<BTreeSet<Audience>>,
    changed: Notify,
}

impl Subscriptions {
    /// Listens for an audience.
    pub fn add(&self, audience: Audience) {
        self.change(|wanted| wanted.insert(audience));
    }

    /// Listens for it no more.
    pub fn remove(&self, audience: &Audience) {
        self.change(|wanted| wanted.remove(audience));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<Audience>) -> bool) {
        if change(&mut self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.shared.changed.notify_one();
        }
    }

    pub(crate) fn wanted(&self) -> BTreeSet<Audience> {
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}
