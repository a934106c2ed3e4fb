//! What a replica has received, and how far each of its readers has come. For each audience that has a reader
//! here the hub keeps a bounded ring of encoded frames, and a reader is a position over the rings of its audiences, not a
//! queue: a slow reader costs no memory, and one that a ring has overtaken is *behind* and reads history until it has
//! caught up. Joining, resuming, a slow reader, a hole and a lost connection are all this one state.
//!
//! The hub is synchronous: a plain mutex, never held across an await.

mod audiences;
mod direct;
mod received;
mod refill;
mod ring;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carillon_broker::{FanOut, Fanout, Subscriptions};
use carillon_protocol::{Audience, CloseCode, Cursor, Position};
use tokio::sync::Notify;

use crate::delivery::frame::Frame;
use direct::Mailbox;
pub use direct::{Credential, Direct, connection_id};
pub use refill::Refill;
use ring::{Ring, frames_after, highest_floor};
pub use values::{Value, Whom};

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
}

#[cfg(test)]
mod tests;
