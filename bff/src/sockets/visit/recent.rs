use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

/// Maximum messages that are remembered: as many as one acknowledgement may name.
const MESSAGES_MAX: usize = 64;
/// Maximum bytes of the names of their senders.
const SENDERS_MAX_BYTES: usize = 1_024;
/// Bytes of a sender beside its name.
const SENDER_BYTES: usize = 32;

/// Hashes ids with a random key of this process, so that no client can choose an id that collides with another.
static IDS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The senders of the messages that were written to a connection lately, so that an acknowledgement may name them by their
/// id alone. It has at most 2.5 KiB, and is empty for most readers.
#[derive(Debug, Default)]
pub(super) struct RecentSenders {
    /// The hash of each id with its sender, oldest first. Each sender is stored once, however many messages it sent.
    messages: VecDeque<(u64, Arc<str>)>,
    sender_bytes: usize,
}

impl RecentSenders {
    pub(super) fn remember(&mut self, from: &str, id: &str) {
        let known = self.messages.iter().find(|(_, sender)| **sender == *from);
        let sender = match known {
            Some((_, sender)) => Arc::clone(sender),
            None => {
                self.sender_bytes += SENDER_BYTES + from.len();
                from.into()
            }
        };
        if self.messages.len() == MESSAGES_MAX {
            self.forget_oldest();
        }
        self.messages.push_back((IDS.hash_one(id), sender));
        while self.sender_bytes > SENDERS_MAX_BYTES {
            self.forget_oldest();
        }
    }

    /// Returns the sender of the newest message with this id.
    pub(super) fn sender_of(&self, id: &str) -> Option<&str> {
        let hash = IDS.hash_one(id);
        self.messages.iter().rev().find(|(of, _)| *of == hash).map(|(_, sender)| &**sender)
    }

    fn forget_oldest(&mut self) {
        let Some((_, sender)) = self.messages.pop_front() else { return };
        if Arc::strong_count(&sender) == 1 {
            self.sender_bytes -= SENDER_BYTES + sender.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that docs/limits.md counts for each reader.
    const MAX_BYTES: usize = 2_560;

    fn held_bytes(recent: &RecentSenders) -> usize {
        recent.messages.capacity() * size_of::<(u64, Arc<str>)>() + recent.sender_bytes
    }

    #[test]
    fn as_many_messages_are_remembered_as_one_acknowledgement_may_name() {
        let mut recent = RecentSenders::default();
        for n in 0..100 {
            recent.remember(["ann", "ben"][n % 2], &n.to_string());
        }
        assert_eq!(recent.sender_of("35"), None);
        assert!((36..100).all(|n| recent.sender_of(&n.to_string()) == Some(["ann", "ben"][n % 2])));
        assert_eq!(recent.sender_bytes, 2 * (SENDER_BYTES + 3));
    }

    #[test]
    fn of_senders_with_long_names_the_newest_are_remembered() {
        let mut recent = RecentSenders::default();
        let name = |n: usize| format!("{n:0128}");
        for n in 0..1_000 {
            recent.remember(&name(n), &name(n));
            assert!(held_bytes(&recent) <= MAX_BYTES, "{} bytes", held_bytes(&recent));
        }
        assert!((994..1_000).all(|n| recent.sender_of(&name(n)) == Some(&name(n))));
        recent.remember(&"x".repeat(SENDERS_MAX_BYTES), "too long a name");
        assert_eq!((recent.messages.len(), recent.sender_bytes), (0, 0));
    }

    #[test]
    fn an_id_belongs_to_its_last_sender() {
        let mut recent = RecentSenders::default();
        recent.remember("ann", "1");
        recent.remember("ben", "1");
        assert_eq!(recent.sender_of("1"), Some("ben"));
    }
}
