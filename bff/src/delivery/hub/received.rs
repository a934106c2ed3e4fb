//! How the rings follow fan-out: published entries, missed entries, and a change of the epoch.

use std::sync::Arc;

use carillon_broker::Fanout;
use carillon_protocol::{Audience, Cursor, Position};

use super::State;
use super::ring::Ring;
use crate::delivery::frame::Frame;
use crate::metrics;

/// Maximum frames in one ring.
pub(super) const RING_MAX_FRAMES: usize = 1_024;
/// Maximum bytes of frames in all rings of a replica. Above it, the ring with the oldest frame is evicted from first.
pub(super) const RINGS_MAX_BYTES: usize = 32 * 1024 * 1024;

impl State {
    /// Records that nothing is received any more. The rings keep their frames: after a short loss of the connection most of
    /// them have missed nothing.
    pub(super) fn connection_lost(&mut self) {
        self.refills_due.clear();
        for ring in self.rings.values_mut() {
            ring.kept_floor = ring.floor.take().or(ring.kept_floor);
            ring.refill = None;
        }
        metrics::fanout_lost();
    }

    /// Clears a ring, and rewinds its readers to the last position that it received.
    pub(super) fn reset_ring(&mut self, audience: &Audience) {
        let Some(mut ring) = self.rings.remove(audience) else { return };
        let front = ring.front();
        if let Some(received) = ring.received {
            self.rewind(&ring, received);
        }
        self.bytes -= ring.clear();
        (ring.floor, ring.kept_floor, ring.received) = (None, None, None);
        self.update_front(audience, front, None);
        self.rings.insert(audience.clone(), ring);
        metrics::fanout_hole();
    }

    pub(super) fn subscribed(&mut self, audiences: &[(Audience, Option<Position>)], tail: &Cursor) {
        self.enter_epoch(&tail.epoch);
        for (audience, last) in audiences {
            let Some(ring) = self.rings.get_mut(audience) else { continue };
            let last = last.unwrap_or_default();
            // A ring that receives already stays as it is: its readers need no history.
            if ring.floor.is_none() {
                match (ring.kept_floor.take(), ring.received) {
                    (Some(floor), Some(received)) if last <= received => ring.floor = Some(floor),
                    (Some(floor), Some(received)) => {
                        (ring.floor, ring.received) = (Some(tail.position), Some(last));
                        ring.refill = Some(floor);
                        self.refills_due.insert(audience.clone(), received);
                    }
                    _ => (ring.floor, ring.received) = (Some(tail.position), Some(last)),
                }
            }
            ring.notify();
        }
    }

    /// Positions of different epochs cannot be compared, so all rings start anew. Subscriptions continue, so the rings start
    /// at zero, and readers of the old epoch are behind.
    pub(super) fn enter_epoch(&mut self, epoch: &str) {
        if *self.epoch == *epoch {
            return;
        }
        self.epoch = epoch.into();
        self.received = Position::ZERO;
        self.fronts.clear();
        self.refills_due.clear();
        self.bytes = 0;
        for ring in self.rings.values_mut() {
            ring.clear();
            (ring.kept_floor, ring.refill) = (None, None);
            (ring.floor, ring.received) = (ring.floor.map(|_| Position::ZERO), None);
            ring.notify();
        }
    }

    /// Advances the end of the sequence.
    pub(super) fn advance(&mut self, fanout: &Fanout) {
        self.enter_epoch(&fanout.epoch);
        if let Some(last) = fanout.entries.last() {
            self.received = self.received.max(last.position);
        }
    }

    pub(super) fn fanout(&mut self, fanout: &Fanout) {
        self.advance(fanout);
        // A message before the confirmation is ignored: it may belong to an earlier subscription, with a hole after it. Its
        // entries are in history, and the position of the confirmation is not before them.
        if self.rings.get(&fanout.audience).is_none_or(|ring| ring.floor.is_none()) {
            return;
        }
        let Some(mut ring) = self.rings.remove(&fanout.audience) else { return };
        let front = ring.front();
        for stored in &fanout.entries {
            if ring.received.is_some_and(|received| stored.position <= received) {
                continue;
            }
            if let Some(received) = ring.received.filter(|received| stored.prev > *received) {
                self.hole(&mut ring, &fanout.audience, received, stored.prev);
            }
            ring.received = Some(stored.position);
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

    /// Entries between `received` and `prev` were published and not received. Readers with a later position, reached through
    /// other audiences, go back: receiving some entries twice is better than missing one.
    pub(super) fn hole(&mut self, ring: &mut Ring, audience: &Audience, received: Position, prev: Position) {
        tracing::warn!(?audience, %received, %prev, "fan-out skipped entries; the readers of this audience read history");
        metrics::fanout_hole();
        self.bytes -= ring.clear();
        ring.floor = Some(prev);
        ring.refill = None;
        self.rewind(ring, received);
    }

    /// Rewinds the readers of a ring to a position.
    pub(super) fn rewind(&mut self, ring: &Ring, to: Position) {
        for id in ring.readers.keys() {
            if let Some(reader) = self.readers.get_mut(id).filter(|reader| reader.epoch == self.epoch) {
                reader.rewind = Some(reader.rewind.map_or(to, |rewind| rewind.min(to)));
            }
        }
    }

    /// Evicts frames until the rings are within their bounds.
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

    /// Evicts the oldest frame of a ring.
    pub(super) fn evict(&mut self, audience: &Audience) {
        let Some(ring) = self.rings.get_mut(audience) else { return };
        let Some(frame) = ring.frames.pop_front() else { return };
        ring.evicted(frame.position);
        let front = ring.front();
        self.bytes -= frame.text.len();
        self.update_front(audience, Some(frame.position), front);
    }

    /// Updates the index of oldest frames after a change of a ring.
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
