use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether a process may be sent work: a set of named latches, all of which must be set. Being ready
/// is apart from being alive, so that a lost Redis takes a replica out of the front door and restarts
/// nothing.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    draining: Arc<AtomicBool>,
    latches: Arc<Mutex<Vec<Latch>>>,
}

/// One condition of [`Readiness`]. Clones set the same condition.
#[derive(Clone, Debug)]
pub struct Latch {
    name: &'static str,
    set: Arc<AtomicBool>,
}

impl Latch {
    /// Says whether the condition holds now. A change is logged.
    pub fn set(&self, set: bool) {
        if self.set.swap(set, Ordering::SeqCst) != set {
            tracing::info!(latch = self.name, set, "readiness");
        }
    }
}

impl Readiness {
    /// What a process that drains lacks.
    const DRAINING: &'static str = "draining";

    /// Adds a condition that does not hold yet. Each call adds one: two of the same name must both
    /// hold, as for two replicas in one process.
    #[must_use]
    pub fn latch(&self, name: &'static str) -> Latch {
        let latch = Latch { name, set: Arc::default() };
        self.latches().push(latch.clone());
        latch
    }

    /// From now on, and for ever, not ready: the process is about to stop.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether everything holds.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// The names of what does not hold, each once.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let draining = self.draining.load(Ordering::SeqCst).then_some(Self::DRAINING);
        let mut missing: Vec<_> = draining.into_iter().collect();
        for latch in self.latches().iter().filter(|latch| !latch.set.load(Ordering::SeqCst)) {
            if !missing.contains(&latch.name) {
                missing.push(latch.name);
            }
        }
        missing
    }

    fn latches(&self) -> MutexGuard<'_, Vec<Latch>> {
        self.latches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_all_latches_are_set() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready(), "nothing is missing");
        let (one, two, other) = (readiness.latch("redis"), readiness.latch("redis"), readiness.latch("hub"));
        assert_eq!(readiness.missing(), ["redis", "hub"]);
        one.clone().set(true);
        other.set(true);
        assert_eq!(readiness.missing(), ["redis"], "two of a name must both hold");
        two.set(true);
        assert!(readiness.is_ready());
        one.set(false);
        assert_eq!(readiness.missing(), ["redis"]);
    }

    #[test]
    fn draining_is_for_ever() {
        let readiness = Readiness::default();
        let latch = readiness.latch("redis");
        latch.set(true);
        readiness.clone().drain();
        latch.set(true);
        assert_eq!(readiness.missing(), ["draining"]);
    }
}
