use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use carillon_protocol::{Audience, Position};

use super::MemoryEngine;
use super::store::Store;

/// The levers with which tests break the in-memory engine.
#[derive(Clone)]
pub struct Faults(Arc<MemoryEngine>);

impl Faults {
    pub(crate) fn new(engine: Arc<MemoryEngine>) -> Self {
        Self(engine)
    }

    /// Ends every subscription, as a killed connection does.
    pub fn cut_subscribers(&self) {
        self.0.listeners().clear();
    }

    /// The next claim, or step of a queue, is carried out and its answer is lost.
    pub fn lose_next_reply(&self) {
        self.0.lose_reply.store(true, Ordering::SeqCst);
    }

    /// Nothing answers until [`Faults::come_back`].
    pub fn go_away(&self) {
        self.0.away.store(true, Ordering::SeqCst);
        self.cut_subscribers();
    }

    /// Answers again.
    pub fn come_back(&self) {
        self.0.away.store(false, Ordering::SeqCst);
        self.0.back.notify_waiters();
    }

    /// All data is lost, as after a restart without persistence.
    pub fn forget(&self) {
        self.replace(|store, now_ms| *store = Store::new(now_ms, Position::ZERO));
        self.cut_subscribers();
    }

    /// All data is lost and every connection stays, as when someone flushes the database.
    pub fn flush(&self) {
        self.replace(|store, now_ms| *store = Store::new(now_ms, Position::ZERO));
    }

    /// A lever that brings back the data as they are now, under a new epoch, as a promoted replica that lagged does.
    pub fn remember(&self) -> impl FnOnce() + use<> {
        let faults = self.clone();
        let earlier = self.0.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
        move || {
            faults.replace(|store, now_ms| {
                let fresh = Store::new(now_ms, earlier.last);
                *store = Store { epoch: fresh.epoch, first: fresh.first, last: fresh.last, ..earlier };
            });
            faults.cut_subscribers();
        }
    }

    /// Removes all but the newest `keep` entries of an audience's history.
    pub fn trim(&self, audience: &Audience, keep: usize) {
        let mut store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = store.histories.get_mut(audience) {
            let excess = kept.entries.len().saturating_sub(keep);
            kept.entries.drain(..excess);
        }
    }

    fn replace(&self, change: impl FnOnce(&mut Store, u64)) {
        change(&mut self.0.store.lock().unwrap_or_else(PoisonError::into_inner), (self.0.clock)());
    }
}
