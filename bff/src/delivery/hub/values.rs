//! Values of which readers are sent the newest: the state that other programs keep for a user, and whether a user is online.
//! A value is read when it is due: for a reader that joins, once the channel that announces changes is subscribed, and for
//! all readers whenever it may have changed, so that no change is missed. Raw payloads are passed on at once.

use bytes::Bytes;
use carillon_broker::limits::RAW_MAX_BYTES;
use carillon_protocol::limits::PRESENCE_TOPIC;
use carillon_protocol::{Audience, check_json, without_bom};
use tokio::sync::Notify;

use super::{Direct, Hub, ReaderId, State};
use crate::metrics;

/// A value of which readers are sent the newest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// The state of this user, for the user's own readers.
    State(String),
    /// Whether this user is online, for readers of the user's presence topic.
    Presence(String),
}

/// The readers that a value is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipients {
    /// Readers that were not sent the value yet.
    New,
    /// All readers.
    All,
}

impl Value {
    /// Returns the value of an audience.
    fn of(audience: &Audience) -> Option<Self> {
        match audience {
            Audience::User(user) => Some(Self::State(user.clone())),
            Audience::Topic(topic) => {
                topic.strip_prefix(PRESENCE_TOPIC).map(|user| Self::Presence(user.to_owned()))
            }
            _ => None,
        }
    }

    fn audience(&self) -> Audience {
        match self {
            Self::State(user) => Audience::User(user.clone()),
            Self::Presence(user) => Audience::Topic(format!("{PRESENCE_TOPIC}{user}")),
        }
    }
}

impl Hub {
    /// Sends what a program published for a user to the user's readers.
    pub fn raw(&self, user: &str, data: &[u8]) {
        if data.len() > RAW_MAX_BYTES {
            return metrics::raw_dropped();
        }
        metrics::raw_received();
        self.send_direct(&Audience::User(user.to_owned()), &raw(data));
    }

    /// Records that from now on every change of the values of these audiences is received. An earlier change may have been
    /// missed.
    pub fn values_received<'a>(&self, audiences: impl IntoIterator<Item = &'a Audience>) {
        let mut state = self.state.lock();
        for audience in audiences {
            if let (Some(value), Some(ring)) = (Value::of(audience), state.rings.get_mut(audience)) {
                ring.receives_values = true;
                self.due(&mut state, value, Recipients::All);
            }
        }
    }

    /// Records that changes of values are not received any more.
    pub fn values_lost(&self) {
        for ring in self.state.lock().rings.values_mut() {
            ring.receives_values = false;
        }
    }

    /// Marks a value as due to be read, if it has a reader here.
    pub fn value_is_due(&self, value: Value, recipients: Recipients) {
        self.due(&mut self.state.lock(), value, recipients);
    }

    /// Notified when a value is due to be read.
    pub fn values_notify(&self) -> &Notify {
        &self.value_due
    }

    /// Returns at most `max` values that are due to be read. They are not due any more.
    pub fn values_due(&self, max: usize) -> Vec<(Value, Recipients)> {
        let due = &mut self.state.lock().values_due;
        (0..max).map_while(|_| due.pop_first()).collect()
    }

    /// Sends a value to the readers that it was read for.
    pub fn send_value(&self, value: &Value, direct: &Direct, recipients: Recipients) {
        let mut state = self.state.lock();
        let State { rings, readers, mail_bytes, .. } = &mut *state;
        let Some(ring) = rings.get_mut(&value.audience()) else { return };
        let new = std::mem::take(&mut ring.without_value);
        for id in ring.readers.keys().filter(|id| recipients == Recipients::All || new.contains(id)) {
            if let Some(reader) = readers.get_mut(id) {
                reader.send_direct(direct.clone(), mail_bytes);
            }
        }
    }

    /// Marks the value as due for a reader that joins, if changes are received already. Otherwise the reader gets it with
    /// all others once they are.
    pub(super) fn request_value(&self, state: &mut State, audience: &Audience, id: ReaderId) {
        let Some(value) = Value::of(audience) else { return };
        let Some(ring) = state.rings.get_mut(audience) else { return };
        ring.without_value.insert(id);
        if ring.receives_values {
            self.due(state, value, Recipients::New);
        }
    }

    fn due(&self, state: &mut State, value: Value, recipients: Recipients) {
        if state.rings.contains_key(&value.audience()) {
            let due = state.values_due.entry(value).or_insert(recipients);
            *due = recipients.max(*due);
            self.value_due.notify_one();
        }
    }
}

/// Returns a payload with its frame: JSON that all programs parse alike is embedded as JSON, anything else as a string.
fn raw(data: &[u8]) -> Direct {
    let json = std::str::from_utf8(data).ok().map(without_bom).filter(|text| check_json(text).is_ok());
    let frame = match json {
        Some(json) => format!(r#"{{"type":"raw","data":{}}}"#, json.trim_ascii()),
        None => {
            let text = serde_json::Value::from(String::from_utf8_lossy(data));
            format!(r#"{{"type":"raw","data":{text}}}"#)
        }
    };
    Direct::Raw { payload: Bytes::copy_from_slice(data), frame: frame.into() }
}

#[cfg(test)]
mod tests;
