//! Entries that were missed while the connection was lost are read once for each audience and put back into its ring,
//! instead of once for each reader. Readers before them wait for that.

use std::sync::Arc;
use tokio::sync::Notify;

use carillon_protocol::{Audience, Position};

use super::ring::Ring;
use super::{Hub, State};
use crate::delivery::frame::Frame;
use crate::metrics;

/// A range of an audience's history that is due to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refill {
    /// The audience.
    pub audience: Audience,
    /// The epoch of the positions.
    pub epoch: Arc<str>,
    /// The position after which the range starts.
    pub after: Position,
    /// The last position of the range.
    pub to: Position,
}

impl Hub {
    /// Notified when a ring is due to be refilled.
    pub fn refill_notify(&self) -> &Notify {
        &self.refill_due
    }

    /// Returns the next range to read.
    pub fn next_refill(&self) -> Option<Refill> {
        let mut state = self.state.lock();
        while let Some((audience, after)) = state.refills_due.pop_first() {
            let ring = state.rings.get(&audience).filter(|ring| ring.refill.is_some());
            if let Some(to) = ring.and_then(|ring| ring.floor) {
                return Some(Refill { audience, epoch: Arc::clone(&state.epoch), after, to });
            }
        }
        None
    }

    /// Puts frames that were read back into their ring. `None` stands for a range that could not be read completely: readers
    /// read history instead.
    pub fn refilled(&self, refill: &Refill, frames: Option<Vec<Arc<Frame>>>) {
        let mut state = self.state.lock();
        if state.epoch != refill.epoch {
            return;
        }
        let Some(ring) = state.rings.get_mut(&refill.audience) else { return };
        // In the meantime the ring may have been cleared, or the connection lost again.
        if ring.floor != Some(refill.to) {
            return;
        }
        let Some(floor) = ring.refill.take() else { return };
        let before = ring.front();
        match frames {
            Some(frames) => {
                let place = ring.frames.partition_point(|frame| frame.position <= refill.after);
                let bytes: usize = frames.iter().map(|frame| frame.text.len()).sum();
                let later = ring.frames.split_off(place);
                ring.frames.extend(frames.into_iter().chain(later));
                ring.floor = Some(floor);
                state.bytes += bytes;
                metrics::ring_refilled();
            }
            None => {
                // Only the frames after the confirmation are complete.
                let place = ring.frames.partition_point(|frame| frame.position <= refill.to);
                let bytes: usize = ring.frames.drain(..place).map(|frame| frame.text.len()).sum();
                state.bytes -= bytes;
            }
        }
        state.after_refill(&refill.audience, before);
    }
}

impl State {
    fn after_refill(&mut self, audience: &Audience, before: Option<Position>) {
        let Some(ring) = self.rings.get(audience) else { return };
        ring.notify();
        let after = ring.front();
        self.update_front(audience, before, after);
        self.shrink(audience);
    }
}

/// Whether a reader at this position will be live once a ring is refilled.
pub(super) fn reaches(rings: &[&Ring], position: Position) -> bool {
    let waits =
        |ring: &&&Ring| ring.refill.is_some_and(|floor| position >= floor) && ring.floor > Some(position);
    let serves = |ring: &&Ring| ring.refill.or(ring.floor).is_some_and(|floor| position >= floor);
    rings.iter().any(|ring| waits(&ring)) && rings.iter().all(serves)
}
