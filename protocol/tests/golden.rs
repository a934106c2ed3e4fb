//! Every message has a pinned sample, is parsed from it, is written back to the same bytes, and is described in
//! docs/protocol/read.md.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use carillon_protocol::received::Delivered;
use carillon_protocol::{ClientMessage, Cursor, ServerMessage, kind_frame, notification_frame};

fn samples(side: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(side);
    let mut samples: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap().trim_end().to_owned())
        })
        .collect();
    samples.sort();
    samples
}

#[test]
fn server_messages_are_written_as_they_were_read() {
    for (name, sample) in samples("server") {
        let message = ServerMessage::parse(&sample).expect(&name);
        assert_eq!(message.kind(), name);
        assert_eq!(message.to_json(), sample);
    }
}

#[test]
fn the_fast_frame_and_the_message_are_the_same_bytes() {
    let (_, sample) = samples("server").into_iter().find(|(name, _)| name == "notification").unwrap();
    let ServerMessage::Notification(Delivered { cursor, claimed_by, notification }) =
        ServerMessage::parse(&sample).unwrap()
    else {
        panic!("a notification");
    };
    let cursor: Cursor = cursor.parse().unwrap();
    assert_eq!(notification_frame(&cursor, &claimed_by, notification.get()), sample);
}

#[test]
fn client_messages_are_written_as_they_were_read() {
    for (name, sample) in samples("client") {
        let message = ClientMessage::parse(&sample).expect(&name);
        assert_eq!(message.kind(), name);
        assert_eq!(message.to_json(), sample);
    }
    let future = ClientMessage::parse(r#"{"type":"hologram","x":{"y":1}}"#).unwrap();
    assert!(matches!(future, ClientMessage::Unknown));
}

#[test]
fn every_message_is_sampled_and_described() {
    // A new variant fails here until it is listed, and then until it has its sample and its description.
    let listed = |message: &ServerMessage| match message {
        ServerMessage::Welcome(_)
        | ServerMessage::Notification(_)
        | ServerMessage::Gap(_)
        | ServerMessage::Heartbeat(_)
        | ServerMessage::State(_)
        | ServerMessage::Raw(_)
        | ServerMessage::Status(_)
        | ServerMessage::Read(_)
        | ServerMessage::Presence(_)
        | ServerMessage::Goodbye(_)
        | ServerMessage::Error(_)
        | ServerMessage::Unknown => message.kind(),
    };
    let sampled: BTreeSet<_> =
        samples("server").iter().map(|(_, sample)| listed(&ServerMessage::parse(sample).unwrap())).collect();
    let all = [
        "welcome",
        "notification",
        "gap",
        "heartbeat",
        "state",
        "raw",
        "status",
        "read",
        "presence",
        "goodbye",
        "error",
    ];
    assert_eq!(sampled, BTreeSet::from(all));
    let listed = |message: &ClientMessage| match message {
        ClientMessage::Hello(_)
        | ClientMessage::Ack(_)
        | ClientMessage::Read(_)
        | ClientMessage::Send(_)
        | ClientMessage::Message(_)
        | ClientMessage::Subscribe(_)
        | ClientMessage::Unsubscribe(_)
        | ClientMessage::Token(_)
        | ClientMessage::Ping
        | ClientMessage::Unknown => message.kind(),
    };
    let sampled: BTreeSet<_> =
        samples("client").iter().map(|(_, sample)| listed(&ClientMessage::parse(sample).unwrap())).collect();
    let all = ["hello", "ack", "read", "send", "message", "subscribe", "unsubscribe", "token", "ping"];
    assert_eq!(sampled, BTreeSet::from(all));

    let document =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol/read.md")).unwrap();
    for (name, _) in samples("server").into_iter().chain(samples("client")) {
        assert!(document.contains(&format!("`{name}`")), "docs/protocol/read.md says nothing about `{name}`");
    }
}

#[test]
fn a_frame_of_another_kind_is_its_entry_with_type_and_cursor_in_front() {
    let cursor: Cursor = "5f2c.1795247100124-0".parse().unwrap();
    let (_, sample) = samples("server").into_iter().find(|(name, _)| name == "read").unwrap();
    assert_eq!(kind_frame("read", &cursor, r#" {"read":"5f2c.1795247100123-0"}"#).unwrap(), sample);
    assert_eq!(kind_frame("read", &cursor, "nothing"), None);
}
