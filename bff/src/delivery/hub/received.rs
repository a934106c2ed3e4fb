//! How the rings follow what is received: what is published, what was missed, and which data set it is of.

use std::sync::Arc;

use carillon_broker::Fanout;
use carillon_protocol::{Audience, Cursor, Position};

use super::State;
use super::ring::Ring;
use crate::delivery::frame::Frame;
use crate::metrics;

/// Frames in one ring at most.
pub(super) const RING_MAX_FRAMES: usize = 1_024;
/// Bytes of frames in all rings of a replica at most; the ring that was written to longest ago gives first.
pub(super) const RINGS_MAX_BYTES: usize = 32 * 1024 * 1024;

impl State {
    /// Nothing is received any more. What the rings have stays: after a short loss of the connection most have missed
    /// nothing.
    pub(super) fn lose(&mut self) {
        self.refills_due.clear();
        for ring in self.rings.values_mut() {
            ring.kept_floor = ring.floor.take().or(ring.kept_floor);
            ring.refill = None;
        }
        metrics::fanout_lost();
    }

    /// Forgets what a ring has, and has its readers go back to before what was missed.
    pub(super) fn lose_ring(&mut self, audience: &Audience) {
        let Some(mut ring) = self.rings.remove(audience) else { return };
        let front = ring.front();
        if let Some(heard) = ring.heard {
            self.rewind(&ring, heard);
        }
        self.bytes -= ring.clear();
        (ring.floor, ring.kept_floor, ring.heard) = (None, None, None);
        self.update_front(audience, front, None);
        self.rings.insert(audience.clone(), ring);
        metrics::fanout_hole();
    }

    pub(super) fn subscribed(&mut self, audiences: &[(Audience, Option<Position>)], tail: &Cursor) {
        self.enter_epoch(&tail.epoch);
        for (audience, last) in audiences {
            let Some(ring) = self.rings.get_mut(audience) else { continue };
            let last = last.unwrap_or_default();
            // One that is received already stays as it is: its readers need not go back to history.
            if ring.floor.is_none() {
                match (ring.kept_floor.take(), ring.heard) {
                    (Some(floor), Some(heard)) if last <= heard => ring.floor = Some(floor),
                    (Some(floor), Some(heard)) => {
                        (ring.floor, ring.heard) = (Some(tail.position), Some(last));
                        ring.refill = Some(floor);
                        self.refills_due.insert(audience.clone(), heard);
                    }
                    _ => (ring.floor, ring.heard) = (Some(tail.position), Some(last)),
                }
            }
            ring.notify();
        }
    }

    /// Positions of another epoch compare with nothing that is held: all rings start anew. What is
    /// still heard goes on being heard, so they start from zero, and readers of the old epoch are behind.
    pub(super) fn enter_epoch(&mut self, epoch: &str) {
        if *self.epoch == *epoch {
            return;
        }
        self.epoch = epoch.into();
        self.heard = Position::ZERO;
        self.fronts.clear();
        self.refills_due.clear();
        self.bytes = 0;
        for ring in self.rings.values_mut() {
            ring.clear();
            (ring.kept_floor, ring.refill) = (None, None);
            (ring.floor, ring.heard) = (ring.floor.map(|_| Position::ZERO), None);
            ring.notify();
        }
    }

    /// Takes in how far the sequence has come.
    pub(super) fn heard(&mut self, fanout: &Fanout) {
        self.enter_epoch(&fanout.epoch);
        if let Some(last) = fanout.entries.last() {
            self.heard = self.heard.max(last.position);
        }
    }

    pub(super) fn fanout(&mut self, fanout: &Fanout) {
        self.heard(fanout);
        // Nothing counts before the confirmation: it may be left over from a subscription that has ended,
        // with a hole behind it. The tail of the confirmation is no earlier, and history has it.
        if self.rings.get(&fanout.audience).is_none_or(|ring| ring.floor.is_none()) {
            return;
        }
        let Some(mut ring) = self.rings.remove(&fanout.audience) else { return };
        let front = ring.front();
        for stored in &fanout.entries {
            if ring.heard.is_some_and(|heard| stored.position <= heard) {
                continue;
            }
            if let Some(heard) = ring.heard.filter(|heard| stored.prev > *heard) {
                self.hole(&mut ring, &fanout.audience, heard, stored.prev);
            }
            ring.heard = Some(stored.position);
            if let Some(frame) = Frame::encode(&fanout.epoch, &fanout.claimed_by, stored) {
                self.bytes += frame.text.len();
                ring.frames.push_back(Arc::new(frame));
            }
        }
        ring.notify();
        self.update_front(&fanout.audience, front, ring.front());
        self.rings.insert(fanout.audience.clone(), ring);
        self.shrink(&fanout.audience);
    }

    /// Something between `heard` and `prev` was published and not heard. A reader that stands later,
    /// by what it got from other audiences, goes back: it sees some twice rather than one never.
    pub(super) fn hole(&mut self, ring: &mut Ring, audience: &Audience, heard: Position, prev: Position) {
        tracing::warn!(?audience, %heard, %prev, "fan-out skipped something; its readers turn to history");
        metrics::fanout_hole();
        self.bytes -= ring.clear();
        ring.floor = Some(prev);
        ring.refill = None;
        self.rewind(ring, heard);
    }

    /// Has the readers of a ring go back to a position.
    pub(super) fn rewind(&mut self, ring: &Ring, to: Position) {
        for id in ring.readers.keys() {
            if let Some(reader) = self.readers.get_mut(id).filter(|reader| reader.epoch == self.epoch) {
                reader.rewind = Some(reader.rewind.map_or(to, |rewind| rewind.min(to)));
            }
        }
    }

    /// Brings the rings back within their bounds.
    pub(super) fn shrink(&mut self, written: &Audience) {
        while self.rings.get(written).is_some_and(|ring| ring.frames.len() > RING_MAX_FRAMES) {
            self.evict(written);
        }
        while self.bytes > RINGS_MAX_BYTES {
            let Some(oldest) = self.fronts.first_key_value().map(|(_, audience)| audience.clone()) else {
                break;
            };
            self.evict(&oldest);
        }
    }

    /// Gives up the oldest frame of a ring.
    pub(super) fn evict(&mut self, audience: &Audience) {
        let Some(ring) = self.rings.get_mut(audience) else { return };
        let Some(frame) = ring.frames.pop_front() else { return };
        ring.gave_up(frame.position);
        let front = ring.front();
        self.bytes -= frame.text.len();
        self.update_front(audience, Some(frame.position), front);
    }

    /// Takes in that the oldest frame of a ring is another one.
    pub(super) fn update_front(
        &mut self,
        audience: &Audience,
        before: Option<Position>,
        after: Option<Position>,
    ) {
        if before != after {
            before.and_then(|before| self.fronts.remove(&before));
            after.and_then(|after| self.fronts.insert(after, audience.clone()));
        }
    }
}
