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
