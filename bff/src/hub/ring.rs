use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use carillon_protocol::Position;
use tokio::sync::Notify;

use super::ReaderId;
use crate::frame::Frame;

/// Frames that a reader takes at once at most.
pub(super) const TAKE_MAX_FRAMES: usize = 64;
/// A reader takes no further frame once it has this many bytes.
pub(super) const TAKE_MAX_BYTES: usize = 64 * 1024;

/// What was heard lately of one audience that has a reader here.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) frames: VecDeque<Arc<Frame>>,
    /// Everything of this audience after here is in `frames`; `None` while nothing is heard of it.
    pub(super) floor: Option<Position>,
    /// The last position heard of this audience; `None` while that is not known.
    pub(super) heard: Option<Position>,
    /// For a user: what other programs say is heard.
    pub(super) programs_heard: bool,
    pub(super) readers: BTreeMap<ReaderId, Arc<Notify>>,
}

/// From where on all of these rings can serve; `None` when one is not heard.
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
