//! Every message has a pinned sample, reads from it, is written back to the same bytes, and is
//! described in docs/protocol.md.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use carillon_protocol::{ClientMessage, Cursor, ServerMessage, notification_frame};

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
    let ServerMessage::Notification { cursor, claimed_by, notification } =
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
        let message: ClientMessage = serde_json::from_str(&sample).expect(&name);
        assert_ne!(message, ClientMessage::Unknown, "{name}");
        assert_eq!(serde_json::to_string(&message).unwrap(), sample);
    }
    let future: ClientMessage = serde_json::from_str(r#"{"type":"hologram","x":{"y":1}}"#).unwrap();
    assert_eq!(future, ClientMessage::Unknown);
}

#[test]
fn every_message_is_sampled_and_described() {
    // A new variant fails here until it is listed, and then until it has its sample and its line.
    let listed = |message: &ServerMessage| match message {
        ServerMessage::Welcome(_)
        | ServerMessage::Notification { .. }
        | ServerMessage::Gap { .. }
        | ServerMessage::Heartbeat { .. }
        | ServerMessage::Goodbye { .. }
        | ServerMessage::Error { .. }
        | ServerMessage::Unknown => message.kind(),
    };
    let sampled: BTreeSet<_> =
        samples("server").iter().map(|(_, sample)| listed(&ServerMessage::parse(sample).unwrap())).collect();
    assert_eq!(sampled, BTreeSet::from(["welcome", "notification", "gap", "heartbeat", "goodbye", "error"]));

    let document =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md")).unwrap();
    for (name, _) in samples("server").into_iter().chain(samples("client")) {
        assert!(document.contains(&format!("`{name}`")), "docs/protocol.md says nothing about `{name}`");
    }
}
