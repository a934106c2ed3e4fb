//! Counts for each key.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

/// Returns the count of a key.
pub fn count<K: Hash + Eq + Borrow<Q>, Q: Hash + Eq + ?Sized>(counts: &HashMap<K, usize>, key: &Q) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

/// Reduces the count of a key, and removes the entry at zero.
pub fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K, by: usize) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= by;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
