use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::stream::Stream;
use super::{Bytes, Clock};

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// The keys of the server, each with the moment at which it expires.
#[derive(Clone)]
pub(super) struct Keyspace {
    clock: Clock,
    /// How far `TIME` is wrong. (Expiry stays right: with a clock that jumps, Redis itself drops what had days to live.)
    pub(super) skew_ms: i64,
    /// The last millisecond that `now_us` returned, and how often it did.
    given_out: (u64, u64),
    slots: BTreeMap<Bytes, Slot>,
}

#[derive(Clone)]
struct Slot {
    value: Stored,
    expires_at_ms: Option<u64>,
}

/// The value of a key.
#[derive(Clone)]
pub(super) enum Stored {
    Text(Bytes),
    List(VecDeque<Bytes>),
    Hash(BTreeMap<Bytes, Bytes>),
    Set(BTreeSet<Bytes>),
    Sorted(SortedSet),
    Stream(Stream),
}

/// A kind of value: read from a [`Stored`], and created where a key is new.
pub(super) trait Kind: Default {
    fn of(stored: &Stored) -> Option<&Self>;
    fn of_mut(stored: &mut Stored) -> Option<&mut Self>;
    fn stored(self) -> Stored;
}

macro_rules! kinds {
    ($($variant:ident: $type:ty),*) => {
        $(impl Kind for $type {
            fn of(stored: &Stored) -> Option<&Self> {
                if let Stored::$variant(value) = stored { Some(value) } else { None }
            }

            fn of_mut(stored: &mut Stored) -> Option<&mut Self> {
                if let Stored::$variant(value) = stored { Some(value) } else { None }
            }

            fn stored(self) -> Stored {
                Stored::$variant(self)
            }
        })*
    };
}

kinds!(
    Text: Bytes,
    List: VecDeque<Bytes>,
    Hash: BTreeMap<Bytes, Bytes>,
    Set: BTreeSet<Bytes>,
    Sorted: SortedSet,
    Stream: Stream
);

impl Keyspace {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, skew_ms: 0, given_out: (0, 0), slots: BTreeMap::new() }
    }

    pub(super) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// Microseconds since 1970. The clock counts milliseconds: within one of them, each call gives a later microsecond, so
    /// that two events keep their order.
    pub(super) fn now_us(&mut self) -> u64 {
        let now_ms = self.now_ms().saturating_add_signed(self.skew_ms);
        let calls = if self.given_out.0 == now_ms { self.given_out.1 + 1 } else { 0 };
        self.given_out = (now_ms, calls);
        now_ms * 1_000 + calls.min(999)
    }

    /// The value of a key; `None` where there is none.
    pub(super) fn get<K: Kind>(&mut self, key: &[u8]) -> Result<Option<&K>, String> {
        self.expire(key);
        match self.slots.get(key) {
            None => Ok(None),
            Some(slot) => K::of(&slot.value).map(Some).ok_or_else(|| WRONG_TYPE.to_owned()),
        }
    }

    /// The value of a key, which the caller may change; an empty one where the key is new.
    pub(super) fn get_mut<K: Kind>(&mut self, key: &[u8]) -> Result<&mut K, String> {
        self.expire(key);
        let slot = self
            .slots
            .entry(key.to_vec())
            .or_insert_with(|| Slot { value: K::default().stored(), expires_at_ms: None });
        K::of_mut(&mut slot.value).ok_or_else(|| WRONG_TYPE.to_owned())
    }

    pub(super) fn set(&mut self, key: &[u8], value: Stored, expires_at_ms: Option<u64>) {
        self.slots.insert(key.to_vec(), Slot { value, expires_at_ms });
    }

    pub(super) fn has(&mut self, key: &[u8]) -> bool {
        self.expire(key);
        self.slots.contains_key(key)
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        self.expire(key);
        self.slots.remove(key).is_some()
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// Removes a collection that a command has emptied; a stream stays.
    pub(super) fn drop_empty(&mut self, key: &[u8]) {
        let is_empty = self.slots.get(key).is_some_and(|slot| match &slot.value {
            Stored::List(list) => list.is_empty(),
            Stored::Hash(hash) => hash.is_empty(),
            Stored::Set(set) => set.is_empty(),
            Stored::Sorted(set) => set.scores.is_empty(),
            Stored::Text(_) | Stored::Stream(_) => false,
        });
        if is_empty {
            self.slots.remove(key);
        }
    }

    pub(super) fn expire_at(&mut self, key: &[u8], at_ms: u64) -> bool {
        self.expire(key);
        let slot = self.slots.get_mut(key);
        slot.map(|slot| slot.expires_at_ms = Some(at_ms)).is_some()
    }

    /// Milliseconds until a key expires: -1 where it does not expire, -2 where there is no such key.
    pub(super) fn time_left(&mut self, key: &[u8]) -> i64 {
        self.expire(key);
        let now_ms = self.now_ms();
        match self.slots.get(key) {
            None => -2,
            Some(Slot { expires_at_ms: None, .. }) => -1,
            Some(Slot { expires_at_ms: Some(at), .. }) => {
                i64::try_from(at.saturating_sub(now_ms)).unwrap_or(i64::MAX)
            }
        }
    }

    /// The keys that begin with a prefix.
    pub(super) fn with_prefix(&self, prefix: &[u8]) -> Vec<Bytes> {
        let from = self.slots.range(prefix.to_vec()..);
        from.map(|(key, _)| key).take_while(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// About how many bytes a key takes.
    pub(super) fn bytes_of(&mut self, key: &[u8]) -> Option<usize> {
        self.expire(key);
        self.slots.get(key).map(|slot| key.len() + slot.value.bytes())
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.iter().map(|(key, slot)| key.len() + slot.value.bytes()).sum()
    }

    fn expire(&mut self, key: &[u8]) {
        let now_ms = self.now_ms();
        let is_over =
            self.slots.get(key).and_then(|slot| slot.expires_at_ms).is_some_and(|at_ms| at_ms <= now_ms);
        if is_over {
            self.slots.remove(key);
        }
    }
}

/// Roughly what Redis adds for each element.
const ELEMENT_BYTES: usize = 24;

impl Stored {
    fn bytes(&self) -> usize {
        let sum =
            |lengths: &mut dyn Iterator<Item = usize>| lengths.map(|length| length + ELEMENT_BYTES).sum();
        match self {
            Self::Text(text) => text.len() + ELEMENT_BYTES,
            Self::List(list) => sum(&mut list.iter().map(Vec::len)),
            Self::Hash(hash) => sum(&mut hash.iter().map(|(field, value)| field.len() + value.len())),
            Self::Set(set) => sum(&mut set.iter().map(Vec::len)),
            Self::Sorted(set) => sum(&mut set.scores.keys().map(Vec::len)),
            Self::Stream(stream) => stream.bytes(),
        }
    }
}

/// Members by score, and among equal scores by their bytes.
#[derive(Clone, Default)]
pub(super) struct SortedSet {
    pub(super) scores: BTreeMap<Bytes, f64>,
    order: BTreeSet<(Score, Bytes)>,
}

#[derive(Clone, Copy, PartialEq)]
struct Score(f64);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl SortedSet {
    /// Sets the score of a member. Returns whether it is new.
    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> bool {
        let is_new = !self.remove(member);
        self.scores.insert(member.to_vec(), score);
        self.order.insert((Score(score), member.to_vec()));
        is_new
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        match self.scores.remove(member) {
            None => false,
            Some(score) => self.order.remove(&(Score(score), member.to_vec())),
        }
    }

    /// Lowest score first.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&Bytes, f64)> {
        self.order.iter().map(|(score, member)| (member, score.0))
    }
}
