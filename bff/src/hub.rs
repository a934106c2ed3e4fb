//! What a replica has received, and how far each of its readers has come. For each audience that has a reader
//! here the hub keeps a bounded ring of encoded frames, and a reader is a position over the rings of its audiences, not a
//! queue: a slow reader costs no memory, and one that a ring has overtaken is *behind* and reads history until it has
//! caught up. Joining, resuming, a slow reader, a hole and a lost connection are all this one state.
//!
//! The hub is synchronous: a plain mutex, never held across an await.

mod audiences;
mod direct;
mod refill;
mod ring;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carillon_broker::{FanOut, Fanout, Subscriptions};
use carillon_protocol::{Audience, CloseCode, Cursor, Position};
use tokio::sync::Notify;

use crate::frame::Frame;
use crate::metrics;
use direct::Mailbox;
pub use direct::{Credential, Direct, connection_id};
pub use refill::Refill;
use ring::{Ring, frames_after, highest_floor};
pub use values::{Value, Whom};

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
    /// Notified when a latest value is to be read.
    value_due: Notify,
    /// Notified when a ring is to be refilled.
    refill_due: Notify,
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
    /// Latest values that have a reader here and are to be read.
    values_due: BTreeMap<Value, Whom>,
    /// Audiences of which something was missed, each with where its ring ended.
    refills_due: BTreeMap<Audience, Position>,
    /// The ring of each oldest frame, to find the one that gives. Positions are unique, whatever the audience.
    fronts: BTreeMap<Position, Audience>,
    /// Bytes of all frames in the rings.
    bytes: usize,
    /// Bytes of all that waits in mailboxes.
    mail_bytes: usize,
    /// Distinct topics that have a reader here.
    topics: usize,
}

struct Reader {
    audiences: Arc<[Audience]>,
    notify: Arc<Notify>,
    /// What waits outside of the sequence. Most readers have nothing, and pay for nothing.
    mailbox: Option<Box<Mailbox>>,
    credential: Option<Arc<Credential>>,
    epoch: Arc<str>,
    position: Position,
    /// A hole was found: go back at least to here, whatever a read that is under way will say.
    rewind: Option<Position>,
}

impl Reader {
    /// Where the reader stands, and to where it has to go back.
    fn cursor(&self) -> Cursor {
        let position = self.rewind.map_or(self.position, |rewind| rewind.min(self.position));
        Cursor { epoch: self.epoch.to_string(), position }
    }
}

impl Hub {
    /// A hub that keeps `subscriptions` in line with its readers.
    #[must_use]
    pub fn new(fan_out: FanOut, subscriptions: Subscriptions) -> Self {
        Self {
            fan_out,
            subscriptions,
            state: Mutex::default(),
            user_changed: Notify::new(),
            value_due: Notify::new(),
            refill_due: Notify::new(),
        }
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
        let reader =
            Reader { audiences, notify, mailbox: None, credential: None, epoch, position, rewind: None };
        state.readers.insert(id, reader);
        now.map(|position| state.cursor(position))
    }

    /// Removes a reader, and the rings that nobody else reads.
    pub fn leave(&self, id: ReaderId) {
        let mut state = self.state();
        let Some(reader) = state.readers.remove(&id) else { return };
        state.mail_bytes -= reader.mail_bytes();
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
        if let Some(mail) = state.take_mail(id) {
            return mail;
        }
        let State { epoch, rings, readers, .. } = &mut *state;
        let Some(reader) = readers.get_mut(&id) else { return Take::Wait };
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
        } else if reader.epoch == *epoch && refill::reaches(&rings, reader.position) {
            // What is missing comes in a moment, read once for all.
            return Take::Wait;
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

    /// What waits for a reader outside of the sequence.
    pub fn take_mail(&self, id: ReaderId) -> Option<Take> {
        self.state().take_mail(id)
    }

    /// Where a reader stands, for a heartbeat. One that is live has everything that was received, of
    /// whichever audience, and moves on to there, so that its cursor does not grow old in a quiet audience. One that has to
    /// go back stands there already: a client that is cut resumes from what it was told.
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
        Some(reader.cursor())
    }

    /// Takes in what was published for an audience.
    pub fn fanout(&self, fanout: &Fanout) {
        let mut state = self.state();
        if matches!(fanout.audience, Audience::Connection(_)) {
            state.for_connections(fanout);
        } else {
            state.fanout(fanout);
        }
    }

    /// Takes in that the connection to the broker is lost: nothing is received until audiences are confirmed again.
    pub fn lost(&self) {
        self.state().lose();
    }

    /// Takes in that audiences are confirmed, each with the last position of its history, and the end of the sequence.
    pub fn subscribed(&self, audiences: &[(Audience, Option<Position>)], tail: &Cursor) {
        let mut state = self.state();
        state.subscribed(audiences, tail);
        if !state.refills_due.is_empty() {
            self.refill_due.notify_one();
        }
    }

    /// Takes in that something was published for an audience that this version cannot read: its readers turn to history.
    pub fn undecodable(&self, audience: &Audience) {
        let mut state = self.state();
        state.lose_ring(audience);
        self.confirm(&state, audience);
    }

    /// Takes in a sign of life: everything up to `tail` was received. When that is another epoch, all audiences are
    /// confirmed anew: in a quiet moment nothing else would tell, and readers that know the new epoch already would read
    /// history again and again.
    pub fn echo(&self, tail: &Cursor) {
        let mut state = self.state();
        if *state.epoch == *tail.epoch {
            state.heard = state.heard.max(tail.position);
        } else {
            state.rings.keys().for_each(|audience| self.confirm(&state, audience));
        }
    }

    fn confirm(&self, state: &State, audience: &Audience) {
        if state.rings.contains_key(audience) {
            self.subscriptions.add(audience.clone());
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
    fn take_mail(&mut self, id: ReaderId) -> Option<Take> {
        let reader = self.readers.get_mut(&id)?;
        let mailbox = reader.mailbox.take()?;
        self.mail_bytes -= mailbox.bytes();
        Some(mailbox.open(reader.cursor()))
    }

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

    /// Nothing is received any more. What the rings have stays: after a short loss of the connection most have missed
    /// nothing.
    fn lose(&mut self) {
        self.refills_due.clear();
        for ring in self.rings.values_mut() {
            ring.kept_floor = ring.floor.take().or(ring.kept_floor);
            ring.refill = None;
        }
        metrics::fanout_lost();
    }

    /// Forgets what a ring has, and has its readers go back to before what was missed.
    fn lose_ring(&mut self, audience: &Audience) {
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

    fn subscribed(&mut self, audiences: &[(Audience, Option<Position>)], tail: &Cursor) {
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
    fn enter_epoch(&mut self, epoch: &str) {
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
        self.update_front(&fanout.audience, front, ring.front());
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
        ring.refill = None;
        self.rewind(ring, heard);
    }

    /// Has the readers of a ring go back to a position.
    fn rewind(&mut self, ring: &Ring, to: Position) {
        for id in ring.readers.keys() {
            if let Some(reader) = self.readers.get_mut(id).filter(|reader| reader.epoch == self.epoch) {
                reader.rewind = Some(reader.rewind.map_or(to, |rewind| rewind.min(to)));
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
        ring.gave_up(frame.position);
        let front = ring.front();
        self.bytes -= frame.text.len();
        self.update_front(audience, Some(frame.position), front);
    }

    /// Takes in that the oldest frame of a ring is another one.
    fn update_front(&mut self, audience: &Audience, before: Option<Position>, after: Option<Position>) {
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
