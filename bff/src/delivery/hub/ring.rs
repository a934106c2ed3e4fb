use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use carillon_protocol::Position;
use tokio::sync::Notify;

use super::ReaderId;
use crate::delivery::frame::Frame;

/// Maximum frames that a reader takes at once.
pub(super) const TAKE_MAX_FRAMES: usize = 64;
/// A reader takes no further frame once it has this many bytes.
pub(super) const TAKE_MAX_BYTES: usize = 64 * 1024;

/// The frames that were received lately of one audience that has a reader here.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) frames: VecDeque<Arc<Frame>>,
    /// All entries of this audience after here are in `frames`; `None` while nothing is received.
    pub(super) floor: Option<Position>,
    /// The floor from before the connection was lost. The frames are kept until it is known whether entries were missed.
    pub(super) kept_floor: Option<Position>,
    /// The floor that the ring will have once the missed entries are read.
    pub(super) refill: Option<Position>,
    /// The last position received of this audience; `None` while it is unknown.
    pub(super) received: Option<Position>,
    /// Whether changes of this audience's value, such as a user's state, are received.
    pub(super) receives_values: bool,
    /// Readers that were not sent that value yet.
    pub(super) without_value: BTreeSet<ReaderId>,
    pub(super) readers: BTreeMap<ReaderId, Arc<Notify>>,
}

/// Returns the position after which all of these rings are complete; `None` when one receives nothing.
pub(super) fn highest_floor(rings: &[&Ring]) -> Option<Position> {
    rings.iter().map(|ring| ring.floor).try_fold(Position::ZERO, |highest, floor| Some(highest.max(floor?)))
}

/// Returns the frames of several rings after a position, in the order of the sequence, up to the bounds above.
pub(super) fn frames_after(rings: &[&Ring], position: Position) -> Vec<Arc<Frame>> {
    let mut next: Vec<usize> =
        rings.iter().map(|ring| ring.frames.partition_point(|frame| frame.position <= position)).collect();
    let mut frames = Vec::new();
    let mut bytes = 0;
    while frames.len() < TAKE_MAX_FRAMES && bytes < TAKE_MAX_BYTES {
        let heads = rings.iter().enumerate().filter_map(|(at, ring)| Some((ring.frames.get(next[at])?, at)));
        let Some((frame, at)) = heads.min_by_key(|(frame, _)| frame.position) else { break };
        next[at] += 1;
        bytes += frame.text.len();
        frames.push(Arc::clone(frame));
    }
    frames
}

impl Ring {
    /// The position of the oldest frame.
    pub(super) fn front(&self) -> Option<Position> {
        self.frames.front().map(|frame| frame.position)
    }

    /// Records that the frame at this position was evicted, and moves the floor there.
    pub(super) fn evicted(&mut self, position: Position) {
        match self.floor {
            None => self.kept_floor = self.kept_floor.max(Some(position)),
            // The frame is older than the missed entries, which are still to be read.
            Some(floor) if position <= floor => self.refill = self.refill.map(|_| position),
            Some(_) => (self.floor, self.refill) = (Some(position), None),
        }
    }

    /// Drops all frames and returns their bytes.
    pub(super) fn clear(&mut self) -> usize {
        self.frames.drain(..).map(|frame| frame.text.len()).sum()
    }

    pub(super) fn notify(&self) {
        for notify in self.readers.values() {
            notify.notify_one();
        }
    }
}
