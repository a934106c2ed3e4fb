use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Whether a process may get work: a set of named latches, all of which must be set. Readiness is separate from liveness, so
/// that a lost Redis removes a replica from the front door and restarts nothing.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    draining: Arc<AtomicBool>,
    latches: Arc<Mutex<Vec<Latch>>>,
}

/// One condition of [`Readiness`]. Clones set the same condition.
#[derive(Clone, Debug)]
pub struct Latch {
    name: &'static str,
    /// How long the condition holds after it was last set.
    lasts: Option<Duration>,
    /// When it was last set; `None` while it does not hold.
    set_at: Arc<Mutex<Option<Instant>>>,
}

impl Latch {
    /// Sets whether the condition holds. A change is logged.
    pub fn set(&self, set: bool) {
        let held = self.holds();
        *self.set_at.lock() = set.then(Instant::now);
        if held != set {
            tracing::info!(latch = self.name, set, "readiness");
        }
    }

    fn holds(&self) -> bool {
        self.set_at.lock().is_some_and(|at| self.lasts.is_none_or(|lasts| at.elapsed() < lasts))
    }
}

impl Readiness {
    /// The missing condition of a process that drains.
    const DRAINING: &'static str = "draining";

    /// Adds a condition that does not hold yet. Each call adds one: two of the same name must both
    /// hold, as for two replicas in one process.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.add(name, None)
    }

    /// Adds a condition that holds for `lasts` after it was last set: a loop that is stuck or dead cannot report that.
    pub fn latch_for(&self, name: &'static str, lasts: Duration) -> Latch {
        self.add(name, Some(lasts))
    }

    fn add(&self, name: &'static str, lasts: Option<Duration>) -> Latch {
        let latch = Latch { name, lasts, set_at: Arc::default() };
        self.latches.lock().push(latch.clone());
        latch
    }

    /// Makes the process not ready for good: it is about to stop.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// Returns the names of the conditions that do not hold, each once.
    pub fn missing(&self) -> Vec<&'static str> {
        let draining = self.draining.load(Ordering::SeqCst).then_some(Self::DRAINING);
        let lacking = self.conditions().into_iter().filter(|(_, holds)| !holds).map(|(name, _)| name);
        draining.into_iter().chain(lacking).collect()
    }

    /// Returns each name once, and whether all of its latches hold.
    pub fn conditions(&self) -> Vec<(&'static str, bool)> {
        let mut conditions: Vec<(&'static str, bool)> = Vec::new();
        for latch in self.latches.lock().iter() {
            match conditions.iter_mut().find(|(name, _)| *name == latch.name) {
                Some((_, holds)) => *holds &= latch.holds(),
                None => conditions.push((latch.name, latch.holds())),
            }
        }
        conditions
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

    #[tokio::test(start_paused = true)]
    async fn a_latch_that_is_not_set_again_falls_by_itself() {
        let readiness = Readiness::default();
        let latch = readiness.latch_for("claims", Duration::from_secs(10));
        assert_eq!(readiness.conditions(), [("claims", false)]);
        for _ in 0..3 {
            latch.set(true);
            tokio::time::advance(Duration::from_secs(9)).await;
            assert!(readiness.is_ready());
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(readiness.missing(), ["claims"]);
        latch.set(true);
        assert_eq!(readiness.conditions(), [("claims", true)]);
        latch.set(false);
        assert_eq!(readiness.missing(), ["claims"]);
    }
}
