use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// A bounded memory of ids: the oldest is forgotten first.
#[derive(Debug)]
pub struct Seen {
    limit: usize,
    order: VecDeque<Arc<str>>,
    ids: HashSet<Arc<str>>,
}

impl Seen {
    /// Creates a memory of at most `limit` ids.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, order: VecDeque::new(), ids: HashSet::new() }
    }

    /// Records an id; returns false when it was known already.
    pub fn insert(&mut self, id: &str) -> bool {
        if self.ids.contains(id) {
            return false;
        }
        if self.order.len() == self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        self.order.push_back(Arc::clone(&id));
        self.ids.insert(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_at_its_limit() {
        let mut seen = Seen::new(2);
        assert!(seen.insert("a") && seen.insert("b") && !seen.insert("a"));
        assert!(seen.insert("c"));
        assert!(seen.insert("a"), "forgotten, as the oldest");
        assert!(!seen.insert("c"));
    }
}
