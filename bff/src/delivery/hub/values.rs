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
        let mut state = self.state();
        for audience in audiences {
            if let (Some(value), Some(ring)) = (Value::of(audience), state.rings.get_mut(audience)) {
                ring.receives_values = true;
                self.due(&mut state, value, Recipients::All);
            }
        }
    }

    /// Records that changes of values are not received any more.
    pub fn values_lost(&self) {
        for ring in self.state().rings.values_mut() {
            ring.receives_values = false;
        }
    }

    /// Marks a value as due to be read, if it has a reader here.
    pub fn value_is_due(&self, value: Value, recipients: Recipients) {
        self.due(&mut self.state(), value, recipients);
    }

    /// Notified when a value is due to be read.
    pub fn values_notify(&self) -> &Notify {
        &self.value_due
    }

    /// Returns at most `max` values that are due to be read. They are not due any more.
    pub fn values_due(&self, max: usize) -> Vec<(Value, Recipients)> {
        let due = &mut self.state().values_due;
        (0..max).map_while(|_| due.pop_first()).collect()
    }

    /// Sends a value to the readers that it was read for.
    pub fn send_value(&self, value: &Value, direct: &Direct, recipients: Recipients) {
        let mut state = self.state();
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
mod tests {
    use std::slice::from_ref;
    use std::sync::Arc;

    use carillon_broker::{FanOut, Subscriptions};
    use carillon_protocol::CloseCode;

    use super::*;
    use crate::delivery::hub::direct::DIRECT_MAX_BYTES;
    use crate::delivery::hub::{Next, ReaderId};

    fn ann() -> Audience {
        Audience::User("ann".into())
    }

    fn received(hub: &Hub) {
        hub.values_received(&[ann()]);
    }

    fn publish(hub: &Hub, user: &str, data: &[u8]) {
        hub.raw(user, data);
    }

    fn due(hub: &Hub) -> Vec<Recipients> {
        hub.values_due(9).into_iter().map(|(_, recipients)| recipients).collect()
    }

    fn state_of_ann() -> Value {
        Value::State("ann".into())
    }

    fn send_state(hub: &Hub, json: &str, recipients: Recipients) {
        hub.send_value(&state_of_ann(), &Direct::State(json.into()), recipients);
    }

    fn take(hub: &Hub, id: ReaderId) -> Vec<String> {
        match hub.next(id) {
            Next::Direct(direct, cursor) => direct.iter().map(|one| one.frame(&cursor).to_string()).collect(),
            Next::Close(code) => vec![code.0.to_string()],
            _ => vec![],
        }
    }

    fn hub_with(readers: &[ReaderId]) -> Hub {
        let hub = Hub::new(FanOut::All, Subscriptions::default());
        for id in readers {
            hub.join(*id, from_ref(&ann()).into(), &Arc::default());
        }
        hub
    }

    #[test]
    fn a_state_is_due_once_changes_are_received() {
        let hub = hub_with(&[1]);
        assert_eq!(due(&hub), [], "a change could still be missed");
        received(&hub);
        assert_eq!(due(&hub), [Recipients::All]);
        send_state(&hub, r#"{"n":"1"}"#, Recipients::All);
        hub.join(2, from_ref(&ann()).into(), &Arc::default());
        assert_eq!(due(&hub), [Recipients::New]);
        send_state(&hub, r#"{"n":"1"}"#, Recipients::New);
        for id in [1, 2] {
            assert_eq!(take(&hub, id), [r#"{"type":"state","state":{"n":"1"}}"#], "once each");
        }
        hub.join(3, from_ref(&ann()).into(), &Arc::default());
        hub.value_is_due(state_of_ann(), Recipients::All);
        hub.value_is_due(Value::State("ben".into()), Recipients::All);
        assert_eq!(due(&hub), [Recipients::All], "due for all readers includes a new one");
        hub.values_lost();
        hub.join(4, from_ref(&ann()).into(), &Arc::default());
        assert_eq!(due(&hub), [], "nothing is received");
    }

    #[test]
    fn of_several_unwritten_states_the_last_is_written() {
        let hub = hub_with(&[1]);
        send_state(&hub, r#"{"n":"1"}"#, Recipients::All);
        publish(&hub, "ann", b"between");
        send_state(&hub, r#"{"n":"2"}"#, Recipients::All);
        assert_eq!(
            take(&hub, 1),
            [r#"{"type":"raw","data":"between"}"#, r#"{"type":"state","state":{"n":"2"}}"#]
        );
    }

    #[test]
    fn a_payload_is_passed_on_as_json_or_as_a_string() {
        let hub = hub_with(&[1]);
        for (data, framed) in [
            (&br#" {"a": 1.10, "b":[]} "#[..], r#"{"a": 1.10, "b":[]}"#),
            (b"9007199254740993", "9007199254740993"),
            (b"plain \"text\"\n", r#""plain \"text\"\n""#),
            (b"{\"cut", r#""{\"cut""#),
            (b"", r#""""#),
            (b"\xff", "\"\u{fffd}\""),
        ] {
            publish(&hub, "ann", data);
            publish(&hub, "ben", data);
            assert_eq!(take(&hub, 1), [format!(r#"{{"type":"raw","data":{framed}}}"#)]);
        }
        publish(&hub, "ann", &[b'x'; RAW_MAX_BYTES + 1]);
        assert_eq!(take(&hub, 1), [""; 0]);
        publish(&hub, "ann", &[0; RAW_MAX_BYTES]);
        assert_eq!(take(&hub, 1)[0].len(), RAW_MAX_BYTES * 6 + r#"{"type":"raw","data":""}"#.len());
    }

    #[test]
    fn a_mailbox_has_a_bound_in_bytes() {
        let hub = hub_with(&[1]);
        let payloads = DIRECT_MAX_BYTES / (2 * RAW_MAX_BYTES);
        for _ in 0..payloads {
            publish(&hub, "ann", &[b'x'; RAW_MAX_BYTES - 100]);
        }
        assert_eq!(take(&hub, 1).len(), payloads);
        for _ in 0..=payloads {
            publish(&hub, "ann", &[b'x'; RAW_MAX_BYTES - 100]);
        }
        assert_eq!(take(&hub, 1), [CloseCode::SLOW.0.to_string()]);
    }

    #[test]
    fn a_reader_of_presence_topics_gets_the_newest_value_of_each_user() {
        let topic = |user: &str| Audience::Topic(format!("presence:{user}"));
        let presence = |user: &str, online: bool| Direct::Presence {
            user: user.into(),
            fields: format!(r#""user":"{user}","online":{online}"#).into(),
        };
        let hub = Hub::new(FanOut::All, Subscriptions::default());
        hub.join(1, [topic("ann"), topic("ben"), Audience::Topic("news".into())].into(), &Arc::default());
        assert_eq!(due(&hub), [], "a change could still be missed");
        hub.values_received(&[topic("ann"), topic("ben"), Audience::Topic("news".into())]);
        assert_eq!(due(&hub), [Recipients::All, Recipients::All]);
        for (user, online) in [("ann", false), ("ben", true), ("ann", true)] {
            hub.send_value(&Value::Presence(user.into()), &presence(user, online), Recipients::All);
        }
        let frame =
            |user: &str| format!(r#"{{"type":"presence","cursor":".0-0","user":"{user}","online":true}}"#);
        assert_eq!(take(&hub, 1), [frame("ben"), frame("ann")]);
        hub.subscribe(1, &topic("cem"));
        assert_eq!(due(&hub), [], "the channel is not subscribed yet");
        hub.join(2, [topic("ann")].into(), &Arc::default());
        assert_eq!(due(&hub), [Recipients::New]);
        hub.send_value(&Value::Presence("ann".into()), &presence("ann", true), Recipients::New);
        assert_eq!((take(&hub, 1).len(), take(&hub, 2).len()), (0, 1));
    }

    #[test]
    fn all_mailboxes_together_have_a_bound() {
        let users: Vec<_> = (0..200).map(|n| n.to_string()).collect();
        let hub = Hub::new(FanOut::All, Subscriptions::default());
        for (id, user) in (0..).zip(&users) {
            hub.join(id, [Audience::User(user.clone())].into(), &Arc::default());
        }
        let mut closed = 0;
        for (id, user) in (0..).zip(&users) {
            for _ in 0..3 {
                publish(&hub, user, &[b'x'; RAW_MAX_BYTES - 100]);
            }
            closed += usize::from(take(&hub, id) == [CloseCode::SLOW.0.to_string()]);
            if closed == 0 {
                // Frames that were taken make room; here no reader takes any.
                for _ in 0..3 {
                    publish(&hub, user, &[b'x'; RAW_MAX_BYTES - 100]);
                }
            }
        }
        assert!(closed > 0, "200 users × 384 KiB are more than 32 MiB");
        (0..200).for_each(|id| hub.leave(id));
        hub.join(1, [Audience::User("0".into())].into(), &Arc::default());
        publish(&hub, "0", b"x");
        assert_eq!(take(&hub, 1).len(), 1, "readers that left have freed their bytes");
    }
}
