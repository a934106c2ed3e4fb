//! What other programs say to users and keep for them: raw payloads, which go on at once, and the state of a
//! user, which is read when it is due. It is due for a reader that joins, once the channel that tells of
//! changes is heard, and for all readers of a user whenever it may have changed: nothing falls between.

use bytes::Bytes;
use carillon_broker::Event;
use carillon_broker::limits::RAW_MAX_BYTES;
use carillon_protocol::Audience;
use serde_json::value::RawValue;

use super::{Direct, Hub, State};
use crate::metrics;

/// For whom a state is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// The user's readers that have not had it yet.
    New,
    /// All of the user's readers.
    All,
}

impl Hub {
    /// Takes in what other programs said and changed, whoever sees what is claimed here.
    pub fn hear_programs(&self, event: &Event) {
        match event {
            Event::Raw { data, .. } if data.len() > RAW_MAX_BYTES => metrics::raw_dropped(),
            Event::Raw { user, data } => {
                metrics::raw_heard();
                self.tell(&Audience::User(user.clone()), &raw(data));
            }
            Event::StateChanged { user } => self.state_is_due(user, Whom::All),
            Event::Subscribed { audiences, .. } => self.programs_heard(audiences),
            Event::Down => {
                for ring in self.state().rings.values_mut() {
                    ring.programs_heard = false;
                }
            }
            _ => {}
        }
    }

    /// Notes that a user's state is to be read, while the user has a reader here.
    pub fn state_is_due(&self, user: &str, whom: Whom) {
        self.due(&mut self.state(), user, whom);
    }

    /// Returns when a state is to be read; at once when one became so since the last call.
    pub async fn states_wanted(&self) {
        self.state_due.notified().await;
    }

    /// The users whose state is to be read now, at most so many. They count as read.
    pub fn states_due(&self, max: usize) -> Vec<(String, Whom)> {
        let due = &mut self.state().states_due;
        (0..max).map_while(|_| due.pop_first()).collect()
    }

    /// Gives a user's state, as a JSON object, to those for whom it was read.
    pub fn tell_state(&self, user: &str, state: &str, whom: Whom) {
        let mut hub = self.state();
        let State { rings, readers, .. } = &mut *hub;
        let Some(ring) = rings.get(&Audience::User(user.to_owned())) else { return };
        let direct = Direct::State(state.into());
        for id in ring.readers.keys() {
            let Some(reader) = readers.get_mut(id) else { continue };
            if reader.wants_state || whom == Whom::All {
                reader.wants_state = false;
                reader.post(direct.clone());
            }
        }
    }

    /// A reader that joins where the channels of its user are heard already gets the state by itself; else
    /// it gets it with all others when they are.
    pub(super) fn greet(&self, state: &mut State, audiences: &[Audience]) {
        for audience in audiences {
            if let Audience::User(user) = audience
                && state.rings.get(audience).is_some_and(|ring| ring.programs_heard)
            {
                self.due(state, user, Whom::New);
            }
        }
    }

    /// From now on every change is heard. One from before may have been missed.
    fn programs_heard(&self, audiences: &[Audience]) {
        let mut state = self.state();
        for audience in audiences {
            if let Audience::User(user) = audience
                && let Some(ring) = state.rings.get_mut(audience)
            {
                ring.programs_heard = true;
                self.due(&mut state, user, Whom::All);
            }
        }
    }

    fn due(&self, state: &mut State, user: &str, whom: Whom) {
        if state.rings.contains_key(&Audience::User(user.to_owned())) {
            let due = state.states_due.entry(user.to_owned()).or_insert(whom);
            *due = whom.max(*due);
            self.state_due.notify_one();
        }
    }
}

/// A payload as it is, and in a frame: JSON as JSON, anything else as a text.
fn raw(data: &[u8]) -> Direct {
    let frame = match serde_json::from_slice::<&RawValue>(data) {
        Ok(json) => format!(r#"{{"type":"raw","data":{json}}}"#),
        Err(_) => {
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
    use carillon_protocol::{CloseCode, Cursor};

    use super::*;
    use crate::hub::direct::DIRECT_MAX_BYTES;
    use crate::hub::{ReaderId, Take};

    fn ann() -> Audience {
        Audience::User("ann".into())
    }

    fn heard(hub: &Hub) {
        let tail = Cursor { epoch: "e".into(), position: carillon_protocol::Position::ZERO };
        hub.hear_programs(&Event::Subscribed { audiences: vec![ann()], tail });
    }

    fn say(hub: &Hub, user: &str, data: &[u8]) {
        hub.hear_programs(&Event::Raw { user: user.into(), data: data.to_vec() });
    }

    fn due(hub: &Hub) -> Vec<Whom> {
        hub.states_due(9).into_iter().map(|(_, whom)| whom).collect()
    }

    fn take(hub: &Hub, id: ReaderId) -> Vec<String> {
        match hub.take(id) {
            Take::Direct(direct, cursor) => direct.iter().map(|one| one.frame(&cursor).to_string()).collect(),
            Take::Close(code) => vec![code.0.to_string()],
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
    fn a_state_is_due_when_changes_are_heard_and_then_for_whom_it_concerns() {
        let hub = hub_with(&[1]);
        assert_eq!(due(&hub), [], "a change could be missed still");
        heard(&hub);
        assert_eq!(due(&hub), [Whom::All]);
        hub.tell_state("ann", r#"{"n":"1"}"#, Whom::All);
        hub.join(2, from_ref(&ann()).into(), &Arc::default());
        assert_eq!(due(&hub), [Whom::New]);
        hub.tell_state("ann", r#"{"n":"1"}"#, Whom::New);
        for id in [1, 2] {
            assert_eq!(take(&hub, id), [r#"{"type":"state","state":{"n":"1"}}"#], "once each");
        }
        hub.join(3, from_ref(&ann()).into(), &Arc::default());
        hub.hear_programs(&Event::StateChanged { user: "ann".into() });
        hub.hear_programs(&Event::StateChanged { user: "ben".into() });
        assert_eq!(due(&hub), [Whom::All], "whoever wants it for all wants it for a new one");
        hub.hear_programs(&Event::Down);
        hub.join(4, from_ref(&ann()).into(), &Arc::default());
        assert_eq!(due(&hub), [], "nothing is heard");
    }

    #[test]
    fn of_several_states_that_nobody_saw_the_last_one_is_written() {
        let hub = hub_with(&[1]);
        hub.tell_state("ann", r#"{"n":"1"}"#, Whom::All);
        say(&hub, "ann", b"between");
        hub.tell_state("ann", r#"{"n":"2"}"#, Whom::All);
        assert_eq!(
            take(&hub, 1),
            [r#"{"type":"raw","data":"between"}"#, r#"{"type":"state","state":{"n":"2"}}"#]
        );
    }

    #[test]
    fn a_payload_is_passed_on_as_json_or_as_a_text() {
        let hub = hub_with(&[1]);
        for (data, framed) in [
            (&br#" {"a": 1.10, "b":[]} "#[..], r#"{"a": 1.10, "b":[]}"#),
            (b"9007199254740993", "9007199254740993"),
            (b"plain \"text\"\n", r#""plain \"text\"\n""#),
            (b"{\"cut", r#""{\"cut""#),
            (b"", r#""""#),
            (b"\xff", "\"\u{fffd}\""),
        ] {
            say(&hub, "ann", data);
            say(&hub, "ben", data);
            assert_eq!(take(&hub, 1), [format!(r#"{{"type":"raw","data":{framed}}}"#)]);
        }
        say(&hub, "ann", &[b'x'; RAW_MAX_BYTES + 1]);
        assert_eq!(take(&hub, 1), [""; 0]);
        say(&hub, "ann", &[0; RAW_MAX_BYTES]);
        assert_eq!(take(&hub, 1)[0].len(), RAW_MAX_BYTES * 6 + r#"{"type":"raw","data":""}"#.len());
    }

    #[test]
    fn payloads_that_nobody_takes_have_a_bound_in_bytes() {
        let hub = hub_with(&[1]);
        let payloads = DIRECT_MAX_BYTES / (2 * RAW_MAX_BYTES);
        for _ in 0..payloads {
            say(&hub, "ann", &[b'x'; RAW_MAX_BYTES - 100]);
        }
        assert_eq!(take(&hub, 1).len(), payloads);
        for _ in 0..=payloads {
            say(&hub, "ann", &[b'x'; RAW_MAX_BYTES - 100]);
        }
        assert_eq!(take(&hub, 1), [CloseCode::SLOW.0.to_string()]);
    }
}
