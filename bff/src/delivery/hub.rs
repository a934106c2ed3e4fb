//! The entries that a replica has received, and how far each of its readers has come. For each audience that has a reader
//! here the hub keeps a bounded ring of encoded frames. A reader is a position over the rings of its audiences and not a
//! queue, so a slow reader costs no memory. A reader that a ring has overtaken is *behind* and reads history until it has
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
use std::sync::Arc;

use carillon_broker::{FanOut, Fanout, Subscriptions};
use carillon_protocol::{Audience, CloseCode, Cursor, Position};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::delivery::frame::Frame;
use direct::Mailbox;
pub use direct::{Credential, Direct, connection_id};
pub use refill::Refill;
use ring::{Ring, frames_after, highest_floor};
pub use values::{Recipients, Value};

/// The id of a reader of this hub. The caller draws it at random, so that no client can guess a connection's id.
pub type ReaderId = u64;

/// What a reader has to do next.
#[derive(Debug)]
pub enum Next {
    /// Write these frames.
    Frames(Vec<Arc<Frame>>),
    /// Read history from here, pass the position reached to [`Hub::set_position`], and call [`Hub::next`] again.
    Behind(Cursor),
    /// Write these frames for this reader's connection alone, with this cursor.
    Direct(Vec<Direct>, Cursor),
    /// Close the connection with this code.
    Close(CloseCode),
    /// Wait for a notification.
    Wait,
}

/// See the module's documentation.
pub struct Hub {
    fan_out: FanOut,
    subscriptions: Subscriptions,
    state: Mutex<State>,
    /// Notified when a user's number of readers has changed.
    user_changed: Notify,
    /// Notified when a value is due to be read.
    value_due: Notify,
    /// Notified when a ring is due to be refilled.
    refill_due: Notify,
}

#[derive(Default)]
struct State {
    epoch: Arc<str>,
    /// The last position that was received, in any audience. Messages arrive in the order of the sequence, so a live reader
    /// has everything up to here.
    received: Position,
    rings: HashMap<Audience, Ring>,
    readers: HashMap<ReaderId, Reader>,
    /// Users whose number of readers here has changed since the last call of `users_changed`.
    users_changed: BTreeSet<String>,
    /// Values that have a reader here and are due to be read.
    values_due: BTreeMap<Value, Recipients>,
    /// Audiences with missed entries, each with the last position that its ring received.
    refills_due: BTreeMap<Audience, Position>,
    /// The ring of each oldest frame, to find the ring to evict from. Positions are unique over all audiences.
    fronts: BTreeMap<Position, Audience>,
    /// Bytes of all frames in the rings.
    bytes: usize,
    /// Bytes of all frames in mailboxes.
    mail_bytes: usize,
    /// The number of distinct topics that have a reader here.
    topics: usize,
}

struct Reader {
    audiences: Arc<[Audience]>,
    notify: Arc<Notify>,
    /// Frames outside of the sequence. Most readers have none, so this costs them one pointer.
    mailbox: Option<Box<Mailbox>>,
    credential: Option<Arc<Credential>>,
    epoch: Arc<str>,
    position: Position,
    /// Set when a hole is found: the reader goes back at least to here, whatever position a running read of history sets.
    rewind: Option<Position>,
}

impl Reader {
    /// The reader's cursor, with a pending rewind applied.
    fn cursor(&self) -> Cursor {
        let position = self.rewind.map_or(self.position, |rewind| rewind.min(self.position));
        Cursor { epoch: self.epoch.to_string(), position }
    }
}

impl Hub {
    /// Creates a hub that keeps `subscriptions` in line with its readers.
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

    /// Adds a reader, which `notify` wakes when frames may be ready. Returns the current position, or `None` while one of
    /// its audiences is not subscribed yet. The reader has no position until [`Hub::set_position`] in that case.
    pub fn join(&self, id: ReaderId, audiences: Arc<[Audience]>, notify: &Arc<Notify>) -> Option<Cursor> {
        let mut state = self.state.lock();
        for audience in audiences.iter() {
            self.add_reader(&mut state, audience, id, notify);
        }
        let now = state.now(&audiences);
        let (epoch, position) = (Arc::clone(&state.epoch), now.unwrap_or_default());
        let notify = Arc::clone(notify);
        let reader =
            Reader { audiences, notify, mailbox: None, credential: None, epoch, position, rewind: None };
        state.readers.insert(id, reader);
        now.map(|position| state.cursor(position))
    }

    /// Removes a reader, and the rings without another reader.
    pub fn leave(&self, id: ReaderId) {
        let mut state = self.state.lock();
        let Some(reader) = state.readers.remove(&id) else { return };
        state.mail_bytes -= reader.mail_bytes();
        for audience in reader.audiences.iter() {
            self.remove_reader(&mut state, audience, id);
        }
    }

    /// Sets the position that a reader has reached by reading history.
    pub fn set_position(&self, id: ReaderId, cursor: &Cursor) {
        let mut state = self.state.lock();
        let epoch = state.shared_epoch(&cursor.epoch);
        if let Some(reader) = state.readers.get_mut(&id) {
            (reader.epoch, reader.position) = (epoch, cursor.position);
        }
    }

    /// Returns what a reader has to do next. Frames that it returns count as taken.
    pub fn next(&self, id: ReaderId) -> Next {
        let mut state = self.state.lock();
        if let Some(mail) = state.take_mail(id) {
            return mail;
        }
        let State { epoch, rings, readers, .. } = &mut *state;
        let Some(reader) = readers.get_mut(&id) else { return Next::Wait };
        if let Some(rewind) = reader.rewind.take() {
            reader.position = reader.position.min(rewind);
        }
        let rings: Vec<&Ring> = reader.audiences.iter().filter_map(|audience| rings.get(audience)).collect();
        let Some(floor) = highest_floor(&rings) else { return Next::Wait };
        if self.fan_out == FanOut::Own {
            reader.position = reader.position.max(floor);
            if reader.epoch != *epoch {
                (reader.epoch, reader.position) = (Arc::clone(epoch), floor);
            }
        } else if reader.epoch == *epoch && refill::reaches(&rings, reader.position) {
            // The missing entries arrive in a moment, read once for all readers.
            return Next::Wait;
        } else if reader.epoch != *epoch || reader.position < floor {
            return Next::Behind(Cursor { epoch: reader.epoch.to_string(), position: reader.position });
        }
        let frames = frames_after(&rings, reader.position);
        match frames.last() {
            None => Next::Wait,
            Some(last) => {
                reader.position = last.position;
                Next::Frames(frames)
            }
        }
    }

    /// Takes the frames that wait for a reader outside of the sequence.
    pub fn take_mail(&self, id: ReaderId) -> Option<Next> {
        self.state.lock().take_mail(id)
    }

    /// Returns a reader's cursor, for a heartbeat. A live reader has everything that was received in any audience, and its
    /// position moves on to there, so that its cursor does not grow old in a quiet audience. A reader with a pending rewind
    /// reports the earlier position, from which a client that is cut off now has to resume.
    pub fn cursor(&self, id: ReaderId) -> Option<Cursor> {
        let mut state = self.state.lock();
        let State { epoch, rings, readers, received, .. } = &mut *state;
        let reader = readers.get_mut(&id)?;
        let rings: Vec<&Ring> = reader.audiences.iter().filter_map(|audience| rings.get(audience)).collect();
        let caught_up = reader.rewind.is_none()
            && reader.epoch == *epoch
            && highest_floor(&rings).is_some_and(|floor| reader.position >= floor)
            && rings
                .iter()
                .all(|ring| ring.frames.back().is_none_or(|last| last.position <= reader.position));
        if caught_up {
            reader.position = reader.position.max(*received);
        }
        Some(reader.cursor())
    }

    /// Receives entries that were published to an audience.
    pub fn fanout(&self, fanout: &Fanout) {
        let mut state = self.state.lock();
        if matches!(fanout.audience, Audience::Connection(_)) {
            state.for_connections(fanout);
        } else {
            state.fanout(fanout);
        }
    }

    /// Records that the connection to the broker is lost: nothing is received until audiences are confirmed again.
    pub fn connection_lost(&self) {
        self.state.lock().connection_lost();
    }

    /// Records that audiences are subscribed, each with the last position of its history, and the end of the sequence.
    pub fn subscribed(&self, audiences: &[(Audience, Option<Position>)], tail: &Cursor) {
        let mut state = self.state.lock();
        state.subscribed(audiences, tail);
        if !state.refills_due.is_empty() {
            self.refill_due.notify_one();
        }
    }

    /// Records a message to an audience that this version cannot decode: its readers read history instead.
    pub fn undecodable(&self, audience: &Audience) {
        let mut state = self.state.lock();
        state.reset_ring(audience);
        self.confirm(&state, audience);
    }

    /// Receives an echo: everything up to `tail` was received. If it is of another epoch, all audiences are confirmed again.
    /// In a quiet moment no other message would show the new epoch, and readers that know it already would read history
    /// again and again.
    pub fn echo(&self, tail: &Cursor) {
        let mut state = self.state.lock();
        if *state.epoch == *tail.epoch {
            state.received = state.received.max(tail.position);
        } else {
            state.rings.keys().for_each(|audience| self.confirm(&state, audience));
        }
    }

    fn confirm(&self, state: &State, audience: &Audience) {
        if state.rings.contains_key(audience) {
            self.subscriptions.add(audience.clone());
        }
    }

    /// The number of readers.
    pub fn readers(&self) -> usize {
        self.state.lock().readers.len()
    }
}

impl State {
    fn take_mail(&mut self, id: ReaderId) -> Option<Next> {
        let reader = self.readers.get_mut(&id)?;
        let mailbox = reader.mailbox.take()?;
        self.mail_bytes -= mailbox.bytes();
        Some(mailbox.into_next(reader.cursor()))
    }

    fn cursor(&self, position: Position) -> Cursor {
        Cursor { epoch: self.epoch.to_string(), position }
    }

    /// Returns the epoch as the text that readers share.
    fn shared_epoch(&self, epoch: &str) -> Arc<str> {
        if *self.epoch == *epoch { Arc::clone(&self.epoch) } else { epoch.into() }
    }

    /// The position of a reader that joins now.
    fn now(&self, audiences: &[Audience]) -> Option<Position> {
        let rings: Vec<&Ring> = audiences.iter().filter_map(|audience| self.rings.get(audience)).collect();
        Some(highest_floor(&rings)?.max(self.received))
    }
}

#[cfg(test)]
mod tests;
