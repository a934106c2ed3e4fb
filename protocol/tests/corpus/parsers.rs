//! The check of a fuzzer, and of the replay of its corpus, with one input: it is parsed, and the result is checked against
//! its rules. Each function panics where a rule is broken, and returns whether the input was accepted.

use carillon_protocol::limits::ENTRY_MAX_BYTES;
use carillon_protocol::{
    Audience, Client, ClientMessage, Cursor, Entry, Notification, Position, ServerMessage, Step,
    format_timestamp, parse_timestamp, ready_to_push,
};

/// The position of entries.
const AT: Position = Position { ms: 1_795_247_100_123, n: 2 };
/// The year 10000, which RFC 3339 cannot write.
const YEAR_10000_MS: u64 = 253_402_300_800_000;

/// A notification that `POST /api/notifications` accepts can be read from the list again, with the same id.
pub(crate) fn notification(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(checked) = Notification::check(text) else { return false };
    let (entry, pushed) = ready_to_push(text, || "given".to_owned()).expect("it was checked");
    assert!(!pushed.id.is_empty() && (checked.id.is_empty() || checked.id == pushed.id));
    if entry.len() <= ENTRY_MAX_BYTES {
        let read = Entry::read(entry.as_bytes(), AT).expect("it was made ready");
        assert_eq!((&read.id, &read.audience), (&pushed.id, &checked.to));
        let lenient: Notification = serde_json::from_str(&read.json).expect("readers are more lenient");
        assert_eq!((lenient.body, lenient.title), (checked.body, checked.title));
    }
    true
}

/// An entry of the list gives a JSON object with an id and a time, which parses to the same again.
pub(crate) fn entry(data: &[u8]) -> bool {
    let Ok(entry) = Entry::read(data, AT) else { return false };
    let read: Notification = serde_json::from_str(&entry.json).expect("an entry holds a notification");
    assert_eq!(read.id, entry.id);
    assert!(parse_timestamp(&read.created_at).is_some());
    assert_eq!(read.to, entry.audience);
    if entry.json.len() <= ENTRY_MAX_BYTES {
        let again = Entry::read(entry.json.as_bytes(), Position::ZERO).expect("it was read before");
        assert_eq!(again.json, entry.json, "nothing is missing any more");
    }
    true
}

/// A cursor has one representation.
pub(crate) fn cursor(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(cursor) = text.parse::<Cursor>() else { return false };
    assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
    assert!(text.len() >= cursor.to_string().len(), "leading zeros are all that may go");
    true
}

/// An audience is written as it was read, as text and as JSON.
pub(crate) fn audience(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let named = text.parse::<Audience>();
    if let Ok(audience) = &named {
        assert_eq!(audience.to_string(), text);
    }
    let json = serde_json::from_str::<Audience>(text);
    for audience in named.iter().chain(&json) {
        assert_eq!(audience.to_string().parse().as_ref(), Ok(audience));
        let written = serde_json::to_string(audience).expect("an audience is JSON");
        assert_eq!(&serde_json::from_str::<Audience>(&written).expect("it was written"), audience);
    }
    named.is_ok() || json.is_ok()
}

/// A frame is written as it was read, except for unknown fields.
pub(crate) fn server_message(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(message) = ServerMessage::parse(text) else { return false };
    if matches!(message, ServerMessage::Unknown) {
        return true;
    }
    let written = message.to_json();
    let again = ServerMessage::parse(&written).expect("it was written");
    assert_eq!((again.kind(), again.to_json()), (message.kind(), written));
    true
}

/// So is a message of a client.
pub(crate) fn client_message(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(message) = ClientMessage::parse(text) else { return false };
    if matches!(message, ClientMessage::Unknown) {
        return true;
    }
    let written = message.to_json();
    let again = ClientMessage::parse(&written).expect("it was written");
    assert_eq!((again.kind(), again.to_json()), (message.kind(), written));
    true
}

/// A timestamp has one meaning.
pub(crate) fn timestamp(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Some(ms) = parse_timestamp(text) else { return false };
    // An offset may lead beyond the year 9999.
    if ms < YEAR_10000_MS {
        assert_eq!(parse_timestamp(&format_timestamp(ms)), Some(ms));
    }
    true
}

/// A client that receives these lines, a frame each, and loses the connection after each empty one, never waits for a time
/// in the past and comes to rest.
pub(crate) fn client(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut client = Client::new(None);
    for (now_ms, line) in (AT.ms..).step_by(100).zip(text.split('\n')) {
        match line {
            "" => client.closed(now_ms, None, 0.5),
            frame => drop(client.text(now_ms, frame)),
        }
        let resting = (0..4).any(|_| match client.step(now_ms, 0.5) {
            Step::Open { since, .. } => {
                assert_eq!(since.as_deref(), client.cursor());
                false
            }
            Step::Drop => false,
            Step::Wait { until_ms } => {
                assert!(until_ms.is_none_or(|until_ms| until_ms > now_ms));
                true
            }
        });
        assert!(resting, "a client asks for a few steps at a time");
    }
    client.cursor().is_some()
}
