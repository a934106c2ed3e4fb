//! What a replica has heard, and who of its readers has taken it. For each audience that has a reader
//! here the hub keeps a bounded ring of encoded frames, and a reader is no queue but a position over
//! the rings of its audiences: a slow reader costs no memory, and one that a ring has overtaken is
//! simply *behind* and reads history until it has caught up. Joining, resuming, a slow reader, a hole
//! and a lost connection are all this one state.
//!
//! The hub is synchronous: a plain mutex, never held across an await.

mod audiences;
mod direct;
mod programs;
mod ring;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carillon_broker::{Event, FanOut, Fanout, Subscriptions};
use carillon_protocol::{Audience, CloseCode, Cursor, Position};
use tokio::sync::Notify;

use crate::frame::Frame;
use crate::metrics;
use direct::Mailbox;
pub use direct::{Credential, Direct, connection_id};
pub use programs::Whom;
use ring::{Ring, frames_after, highest_floor};

/// Frames in one ring at most.
const RING_MAX_FRAMES: usize = 1_024;
/// Bytes of frames in all rings of a replica at most; the ring that was written to longest ago gives first.
const RINGS_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Names a reader of this hub: drawn by whoever adds it, so that nobody can guess a connection's id.
pub type ReaderId = u64;

/// What a reader does next.
#[derive(Debug)]
pub enum Take {
    /// Write these.
    Frames(Vec<Arc<Frame>>),
    /// Read history from here, tell the hub how far it came, and take again.
    Behind(Cursor),
    /// Write these, which are for this reader's connection alone, at this cursor.
    Direct(Vec<Direct>, Cursor),
    /// Close it with this code.
    Close(CloseCode),
    /// Wait to be notified.
    Wait,
}

/// See the module.
pub struct Hub {
    fan_out: FanOut,
    subscriptions: Subscriptions,
    state: Mutex<State>,
    /// Notified when a user's number of readers has changed.
    user_changed: Notify,
    /// Notified when the state of a user is to be read.
    state_due: Notify,
}

#[derive(Default)]
struct State {
    epoch: Arc<str>,
    /// The last position that was heard, in any audience. Messages come in the order of the sequence,
    /// so a live reader has everything up to here.
    heard: Position,
    rings: HashMap<Audience, Ring>,
    readers: HashMap<ReaderId, Reader>,
    /// Users whose number of readers here has changed since that was last asked.
    users_changed: BTreeSet<String>,
    /// Users with a reader here whose state is to be read.
    states_due: BTreeMap<String, Whom>,
    /// The ring of each oldest frame, to find the one that gives. Positions are unique, whatever the audience.
    fronts: BTreeMap<Position, Audience>,
    /// Bytes of all frames in the rings.
    bytes: usize,
}

struct Reader {
    audiences: Arc<[Audience]>,
    notify: Arc<Notify>,
    /// What waits outside of the sequence. Most readers have nothing, and pay for nothing.
    mailbox: Option<Box<Mailbox>>,
    /// It has not had the state of its user yet.
    wants_state: bool,
    credential: Option<Arc<Credential>>,
    epoch: Arc<str>,
    position: Position,
    /// A hole was found: go back at least to here, whatever a read that is under way will say.
    rewind: Option<Position>,
}

impl Hub {
    /// A hub that keeps `subscriptions` in line with its readers.
    #[must_use]
    pub fn new(fan_out: FanOut, subscriptions: Subscriptions) -> Self {
        let (user_changed, state_due) = (Notify::new(), Notify::new());
        Self { fan_out, subscriptions, state: Mutex::default(), user_changed, state_due }
    }

    /// Adds a reader, to be notified when there may be something to take, and says where "now" is;
    /// `None` while one of its audiences is not heard yet. It stands nowhere until [`Hub::set_position`].
    pub fn join(&self, id: ReaderId, audiences: Arc<[Audience]>, notify: &Arc<Notify>) -> Option<Cursor> {
        let mut state = self.state();
        for audience in audiences.iter() {
            self.enter(&mut state, audience, id, notify);
        }
        let now = state.now(&audiences);
        let (epoch, position) = (Arc::clone(&state.epoch), now.unwrap_or_default());
        let notify = Arc::clone(notify);
        self.greet(&mut state, &audiences);
        let reader = Reader {
            audiences,
            notify,
            mailbox: None,
            wants_state: true,
            credential: None,
            epoch,
            position,
            rewind: None,
        };
        state.readers.insert(id, reader);
        now.map(|position| state.cursor(position))
    }

    /// Removes a reader, and the rings that nobody else reads.
    pub fn leave(&self, id: ReaderId) {
        let mut state = self.state();
        let Some(reader) = state.readers.remove(&id) else { return };
        for audience in reader.audiences.iter() {
            self.exit(&mut state, audience, id);
        }
    }

    /// Says how far a reader has come by reading history.
    pub fn set_position(&self, id: ReaderId, cursor: &Cursor) {
        let mut state = self.state();
        let epoch = state.shared_epoch(&cursor.epoch);
        if let Some(reader) = state.readers.get_mut(&id) {
            (reader.epoch, reader.position) = (epoch, cursor.position);
        }
    }

    /// What a reader does next. Frames that it returns count as taken.
    pub fn take(&self, id: ReaderId) -> Take {
        let mut state = self.state();
        let State { epoch, rings, readers, .. } = &mut *state;
        let Some(reader) = readers.get_mut(&id) else { return Take::Wait };
        if let Some(mailbox) = reader.mailbox.take() {
            let cursor = Cursor { epoch: reader.epoch.to_string(), position: reader.position };
            return mailbox.open(cursor);
        }
        if let Some(rewind) = reader.rewind.take() {
            reader.position = reader.position.min(rewind);
        }
        let rings: Vec<&Ring> = reader.audiences.iter().filter_map(|audience| rings.get(audience)).collect();
        let Some(floor) = highest_floor(&rings) else { return Take::Wait };
        if self.fan_out == FanOut::Own {
            reader.position = reader.position.max(floor);
            if reader.epoch != *epoch {
                (reader.epoch, reader.position) = (Arc::clone(epoch), floor);
            }
        } else if reader.epoch != *epoch || reader.position < floor {
            return Take::Behind(Cursor { epoch: reader.epoch.to_string(), position: reader.position });
        }
        let frames = frames_after(&rings, reader.position);
        match frames.last() {
            None => Take::Wait,
            Some(last) => {
                reader.position = last.position;
                Take::Frames(frames)
            }
        }
    }

    /// Where a reader stands, for a heartbeat. One that is live has everything that was heard, of
    /// whichever audience, and moves on to there, so that its cursor does not grow old in a quiet audience.
    pub fn cursor(&self, id: ReaderId) -> Option<Cursor> {
        let mut state = self.state();
        let State { epoch, rings, readers, heard, .. } = &mut *state;
        let reader = readers.get_mut(&id)?;
        let rings: Vec<&Ring> = reader.audiences.iter().filter_map(|audience| rings.get(audience)).collect();
        let caught_up = reader.rewind.is_none()
            && reader.epoch == *epoch
            && highest_floor(&rings).is_some_and(|floor| reader.position >= floor)
            && rings
                .iter()
                .all(|ring| ring.frames.back().is_none_or(|last| last.position <= reader.position));
        if caught_up {
            reader.position = reader.position.max(*heard);
        }
        Some(Cursor { epoch: reader.epoch.to_string(), position: reader.position })
    }

    /// Takes in what the broker reports.
    pub fn hear(&self, event: &Event) {
        match event {
            Event::Up | Event::Wake | Event::Revoked(_) | Event::Raw { .. } | Event::StateChanged { .. } => {}
            Event::Down => self.state().forget(),
            Event::Subscribed { audiences, tail } => self.state().subscribed(audiences, tail),
            Event::Fanout(fanout) if matches!(fanout.audience, Audience::Connection(_)) => {
                self.state().for_connections(fanout);
            }
            Event::Fanout(fanout) => self.state().fanout(fanout),
        }
    }

    /// Takes in the epoch of a claim. When it is not the one that was last heard of, all audiences are confirmed
    /// anew: in a quiet moment nothing else would tell, and readers that know the new epoch already would ask
    /// history again and again. The answer comes in its turn, so that a claim that was overtaken changes nothing.
    pub fn claimed_in(&self, epoch: &str) {
        let state = self.state();
        if *state.epoch != *epoch {
            for audience in state.rings.keys() {
                self.subscriptions.add(audience.clone());
            }
        }
    }

    /// How many readers there are.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.state().readers.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cursor(&self, position: Position) -> Cursor {
        Cursor { epoch: self.epoch.to_string(), position }
    }

    /// The epoch as the one text that readers share.
    fn shared_epoch(&self, epoch: &str) -> Arc<str> {
        if *self.epoch == *epoch { Arc::clone(&self.epoch) } else { epoch.into() }
    }

    /// What a reader that joins now has not missed.
    fn now(&self, audiences: &[Audience]) -> Option<Position> {
        let rings: Vec<&Ring> = audiences.iter().filter_map(|audience| self.rings.get(audience)).collect();
        Some(highest_floor(&rings)?.max(self.heard))
    }

    /// Nothing that is said is heard any more.
    fn forget(&mut self) {
        for ring in self.rings.values_mut() {
            ring.clear();
            (ring.floor, ring.heard) = (None, None);
        }
        self.fronts.clear();
        self.bytes = 0;
        metrics::fanout_lost();
    }

    fn subscribed(&mut self, audiences: &[Audience], tail: &Cursor) {
        self.enter_epoch(&tail.epoch);
        for audience in audiences {
            let Some(ring) = self.rings.get_mut(audience) else { continue };
            // One that is heard already stays as it is: its readers need not go back to history.
            if ring.floor.is_none() {
                (ring.floor, ring.heard) = (Some(tail.position), Some(tail.position));
            }
            ring.notify();
        }
    }

    /// Positions of another epoch compare with nothing that is held: all rings start anew. What is
    /// still heard goes on being heard, so they start from zero, and readers of the old epoch are behind.
    fn enter_epoch(&mut self, epoch: &str) {
        if *self.epoch == *epoch {
            return;
        }
        self.epoch = epoch.into();
        self.heard = Position::ZERO;
        self.fronts.clear();
        self.bytes = 0;
        for ring in self.rings.values_mut() {
            ring.clear();
            (ring.floor, ring.heard) = (ring.floor.map(|_| Position::ZERO), None);
            ring.notify();
        }
    }

    /// Notes how far the sequence has come.
    fn heard(&mut self, fanout: &Fanout) {
        self.enter_epoch(&fanout.epoch);
        if let Some(last) = fanout.entries.last() {
            self.heard = self.heard.max(last.position);
        }
    }

    fn fanout(&mut self, fanout: &Fanout) {
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
        self.refront(&fanout.audience, front, ring.front());
        self.rings.insert(fanout.audience.clone(), ring);
        self.shrink(&fanout.audience);
    }

    /// Something between `heard` and `prev` was published and not heard. A reader that stands later,
    /// by what it got from other audiences, goes back: it sees some twice rather than one never.
    fn hole(&mut self, ring: &mut Ring, audience: &Audience, heard: Position, prev: Position) {
        tracing::warn!(?audience, %heard, %prev, "fan-out skipped something; its readers turn to history");
        metrics::fanout_hole();
        self.bytes -= ring.clear();
        ring.floor = Some(prev);
        for id in ring.readers.keys() {
            if let Some(reader) = self.readers.get_mut(id).filter(|reader| reader.epoch == self.epoch) {
                reader.rewind = Some(reader.rewind.map_or(heard, |rewind| rewind.min(heard)));
            }
        }
    }

    /// Brings the rings back within their bounds.
    fn shrink(&mut self, written: &Audience) {
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
    fn evict(&mut self, audience: &Audience) {
        let Some(ring) = self.rings.get_mut(audience) else { return };
        let Some(frame) = ring.frames.pop_front() else { return };
        ring.floor = Some(frame.position);
        let front = ring.front();
        self.bytes -= frame.text.len();
        self.refront(audience, Some(frame.position), front);
    }

    /// Notes that the oldest frame of a ring is another one.
    fn refront(&mut self, audience: &Audience, before: Option<Position>, after: Option<Position>) {
        if before != after {
            before.and_then(|before| self.fronts.remove(&before));
            after.and_then(|after| self.fronts.insert(after, audience.clone()));
        }
    }
}

#[cfg(test)]
mod direct_tests;
#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
