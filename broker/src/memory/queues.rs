//! The way from jobs and outbox to the store: each call is one step, as a script is.

use super::MemoryEngine;
use crate::BrokerError;
use crate::jobs::memory::Jobs;
use crate::outbox::memory::Outbox;

impl MemoryEngine {
    /// A step of the queue of jobs, whose reports are pushed to the list at its end.
    pub(crate) fn with_jobs<T>(&self, step: impl FnOnce(&mut Jobs, u64) -> T) -> Result<T, BrokerError> {
        let now_ms = (self.clock)();
        let (answer, told) = {
            let mut store = self.store()?;
            let answer = step(&mut store.jobs, now_ms);
            let reports = std::mem::take(&mut store.jobs.reports);
            let told = !reports.is_empty();
            store.list.extend(reports);
            (answer, told)
        };
        if told {
            self.wake();
        }
        self.answer(answer)
    }

    /// A step of the outbox; what it gives up goes to the dead list at its end.
    pub(crate) fn with_outbox<T>(&self, step: impl FnOnce(&mut Outbox, u64) -> T) -> Result<T, BrokerError> {
        let now_ms = (self.clock)();
        let mut store = self.store()?;
        let answer = step(&mut store.outbox, now_ms);
        for dead in std::mem::take(&mut store.outbox.dead) {
            store.bury(&dead);
        }
        drop(store);
        self.answer(answer)
    }
}
