use std::collections::BTreeSet;
use std::sync::Arc;

use carillon_protocol::Audience;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The audiences that a replica has readers for. The listener subscribes and unsubscribes accordingly, so that a burst of
/// joins and leaves becomes one command each way.
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
    /// The audiences that were added or removed since the listener last read them, so that a change costs no walk over all.
    changed: BTreeSet<Audience>,
}

/// What a listener has to subscribe to, and to unsubscribe from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Audiences to subscribe to, or to confirm anew.
    pub(super) added: Vec<Audience>,
    /// Audiences to unsubscribe from.
    pub(super) removed: Vec<Audience>,
}

impl Subscriptions {
    /// Subscribes to an audience, and with a user to what other programs publish for that user. Adding an audience that is
    /// there already confirms it anew.
    pub fn add(&self, audience: Audience) {
        let mut wanted = self.shared.wanted.lock();
        wanted.changed.insert(audience.clone());
        wanted.audiences.insert(audience);
        self.shared.changed.notify_one();
    }

    /// Unsubscribes from an audience.
    pub fn remove(&self, audience: &Audience) {
        let mut wanted = self.shared.wanted.lock();
        if wanted.audiences.remove(audience) {
            wanted.changed.insert(audience.clone());
            self.shared.changed.notify_one();
        }
    }

    /// Returns all audiences that are wanted now, for a connection without subscriptions.
    pub(super) fn all(&self) -> Difference {
        let mut wanted = self.shared.wanted.lock();
        wanted.changed.clear();
        Difference { added: wanted.audiences.iter().cloned().collect(), removed: vec![] }
    }

    /// Returns what has changed since the last call.
    pub(super) fn difference(&self) -> Difference {
        let mut wanted = self.shared.wanted.lock();
        let changed = std::mem::take(&mut wanted.changed);
        let (added, removed) = changed.into_iter().partition(|audience| wanted.audiences.contains(audience));
        Difference { added, removed }
    }

    /// Whether an audience is wanted.
    pub(super) fn has(&self, audience: &Audience) -> bool {
        self.shared.wanted.lock().audiences.contains(audience)
    }

    pub(super) async fn changed(&self) {
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
