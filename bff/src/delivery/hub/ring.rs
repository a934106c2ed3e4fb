use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use carillon_protocol::Position;
use tokio::sync::Notify;

use super::ReaderId;
use crate::delivery::frame::Frame;

/// Frames that a reader takes at once at most.
pub(super) const TAKE_MAX_FRAMES: usize = 64;
/// A reader takes no further frame once it has this many bytes.
pub(super) const TAKE_MAX_BYTES: usize = 64 * 1024;

/// What was received lately of one audience that has a reader here.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) frames: VecDeque<Arc<Frame>>,
    /// Everything of this audience after here is in `frames`; `None` while nothing is received of it.
    pub(super) floor: Option<Position>,
    /// The floor from before the connection was lost: the frames are kept until it is known what was missed.
    pub(super) kept_floor: Option<Position>,
    /// The floor that the ring will have when what was missed is read again.
    pub(super) refill: Option<Position>,
    /// The last position received of this audience; `None` while that is not known.
    pub(super) heard: Option<Position>,
    /// Changes of the latest value that goes with this audience, such as a user's state, are received.
    pub(super) values_heard: bool,
    /// Readers that have not had that value yet.
    pub(super) wanting: BTreeSet<ReaderId>,
    pub(super) readers: BTreeMap<ReaderId, Arc<Notify>>,
}

/// From where on all of these rings can serve; `None` when one receives nothing.
pub(super) fn highest_floor(rings: &[&Ring]) -> Option<Position> {
    rings.iter().map(|ring| ring.floor).try_fold(Position::ZERO, |highest, floor| Some(highest.max(floor?)))
}

/// The frames of several rings after a position, in the order of the sequence, bounded.
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

    /// Takes in that the oldest frame is gone: from where on the ring serves now.
    pub(super) fn gave_up(&mut self, position: Position) {
        match self.floor {
            None => self.kept_floor = self.kept_floor.max(Some(position)),
            // It was from before what was missed, which is still to come.
            Some(floor) if position <= floor => self.refill = self.refill.map(|_| position),
            Some(_) => (self.floor, self.refill) = (Some(position), None),
        }
    }

    /// Drops all frames and says how many bytes that were.
    pub(super) fn clear(&mut self) -> usize {
        self.frames.drain(..).map(|frame| frame.text.len()).sum()
    }

    pub(super) fn notify(&self) {
        for notify in self.readers.values() {
            notify.notify_one();
        }
    }
}
