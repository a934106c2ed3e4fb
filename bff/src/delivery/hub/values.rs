//! What readers are sent the latest of: the state that other programs keep for a user, and whether a user is online. A value
//! is read when it is due: for a reader that joins, once the channel is received on which changes are announced, and for all
//! readers whenever it may have changed, so that nothing falls between. And raw payloads, which go on at once.

use bytes::Bytes;
use carillon_broker::limits::RAW_MAX_BYTES;
use carillon_protocol::limits::PRESENCE_TOPIC;
use carillon_protocol::{Audience, check_json, without_bom};
use tokio::sync::Notify;

use super::{Direct, Hub, ReaderId, State};
use crate::metrics;

/// What there is a latest of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// The state of this user, for the user's own readers.
    State(String),
    /// Whether this user is online, for readers of the topic.
    Presence(String),
}

/// For whom a value is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// Readers that have not had it yet.
    New,
    /// All readers.
    All,
}

impl Value {
    /// The value that goes with an audience.
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
        metrics::raw_heard();
        self.post(&Audience::User(user.to_owned()), &raw(data));
    }

    /// Takes in that from now on every change of the values of these audiences is received. One from before may have been
    /// missed.
    pub fn values_received<'a>(&self, audiences: impl IntoIterator<Item = &'a Audience>) {
        let mut state = self.state();
        for audience in audiences {
            if let (Some(value), Some(ring)) = (Value::of(audience), state.rings.get_mut(audience)) {
                ring.values_heard = true;
                self.due(&mut state, value, Whom::All);
            }
        }
    }

    /// Takes in that changes of values are not received any more.
    pub fn values_lost(&self) {
        for ring in self.state().rings.values_mut() {
            ring.values_heard = false;
        }
    }

    /// Takes in that a value is to be read, while it has a reader here.
    pub fn value_is_due(&self, value: Value, whom: Whom) {
        self.due(&mut self.state(), value, whom);
    }

    /// Notified when a value is to be read.
    pub fn values_wanted(&self) -> &Notify {
        &self.value_due
    }

    /// The values that are to be read now, at most so many. They count as read.
    pub fn values_due(&self, max: usize) -> Vec<(Value, Whom)> {
        let due = &mut self.state().values_due;
        (0..max).map_while(|_| due.pop_first()).collect()
    }

    /// Sends a value to those for whom it was read.
    pub fn send_value(&self, value: &Value, direct: &Direct, whom: Whom) {
        let mut state = self.state();
        let State { rings, readers, mail_bytes, .. } = &mut *state;
        let Some(ring) = rings.get_mut(&value.audience()) else { return };
        let new = std::mem::take(&mut ring.wanting);
        for id in ring.readers.keys().filter(|id| whom == Whom::All || new.contains(id)) {
            if let Some(reader) = readers.get_mut(id) {
                reader.post(direct.clone(), mail_bytes);
            }
        }
    }

    /// A reader that joins where changes are received already gets the value by itself; else it gets it with all others
    /// when they are.
    pub(super) fn want_value(&self, state: &mut State, audience: &Audience, id: ReaderId) {
        let Some(value) = Value::of(audience) else { return };
        let Some(ring) = state.rings.get_mut(audience) else { return };
        ring.wanting.insert(id);
        if ring.values_heard {
            self.due(state, value, Whom::New);
        }
    }

    fn due(&self, state: &mut State, value: Value, whom: Whom) {
        if state.rings.contains_key(&value.audience()) {
            let due = state.values_due.entry(value).or_insert(whom);
            *due = whom.max(*due);
            self.value_due.notify_one();
        }
    }
}

/// A payload as it is, and in a frame: JSON that all programs read alike as JSON, anything else as a text.
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
