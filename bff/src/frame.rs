use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use carillon_broker::{Kind, MessageRef, Stored};
use carillon_protocol::{Audience, Cursor, Entry, Position, kind_frame, notification_frame};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// One entry, encoded once a replica and shared by all its readers: nothing in it is a reader's own.
#[derive(Debug)]
pub struct Frame {
    /// Where a reader stands after it.
    pub position: Position,
    /// What it is, and the frame's `type`.
    pub kind: Kind,
    /// Milliseconds since 1970 from which on it is dropped.
    pub expires_at_ms: Option<u64>,
    /// A notification that one user sends to another, which may be a message of the ledger.
    pub message: Option<Arc<MessageRef>>,
    /// The frame.
    pub text: Utf8Bytes,
    /// The frame as a server-sent event, since the first reader on `/sse`.
    event: OnceLock<Bytes>,
}

impl Frame {
    /// The frame of an entry; `None` for one of a kind that this version does not know, and for a
    /// notification that the strict reading refuses, which its claimer writes to the dead list. Readers
    /// step over both.
    #[must_use]
    pub fn encode(epoch: &str, claimed_by: &str, stored: &Stored) -> Option<Self> {
        let Stored { position, kind, raw, .. } = stored;
        let cursor = Cursor { epoch: epoch.to_owned(), position: *position };
        let (expires_at_ms, message, text) = match kind {
            Kind::Notification => {
                let entry = Entry::read(raw, *position).ok()?;
                let message = match (&entry.from, &entry.audience) {
                    (Some(from), Audience::User(_)) => {
                        Some(Arc::new(MessageRef { from: from.clone(), id: entry.id.clone() }))
                    }
                    _ => None,
                };
                (entry.expires_at_ms, message, notification_frame(&cursor, claimed_by, &entry.json))
            }
            Kind::Unknown => return None,
            _ => (None, None, kind_frame(kind.as_str(), &cursor, std::str::from_utf8(raw).ok()?)?),
        };
        let event = OnceLock::new();
        Some(Self { position: *position, kind: *kind, expires_at_ms, message, text: text.into(), event })
    }

    /// The frame as a server-sent event.
    #[must_use]
    pub fn event(&self) -> Bytes {
        self.event.get_or_init(|| event_of(&self.text)).clone()
    }
}

/// One server-sent event of a frame that has its type first and its cursor, where it has one, behind it. All but `welcome`
/// do, so nothing is parsed.
pub(crate) fn event_of(frame: &str) -> Bytes {
    let mut head = frame.splitn(9, '"');
    match (head.nth(1), head.nth(1), head.nth(1), head.nth(1)) {
        (Some("type"), Some(kind), Some("cursor"), Some(cursor)) => event(kind, Some(cursor), frame),
        (Some("type"), Some(kind), ..) => event(kind, None, frame),
        // Every frame begins so. A reader that got one as plain data loses nothing.
        _ => event("message", None, frame),
    }
}

/// One server-sent event (HTML Living Standard, section 9.2) of a frame: `event` is the type, `id` the cursor, and `data`
/// the frame.
pub(crate) fn event(kind: &str, cursor: Option<&str>, frame: &str) -> Bytes {
    let mut event = String::with_capacity(frame.len() + 96);
    for (field, value) in [("event", Some(kind)), ("id", cursor)] {
        if let Some(value) = value {
            event.extend([field, ": ", value, "\n"]);
        }
    }
    // A producer's JSON may span lines, each of which needs its own `data`: outside of strings, where JSON allows line
    // ends, any of them will do.
    for line in frame.split(['\n', '\r']) {
        event.extend(["data: ", line, "\n"]);
    }
    event.push('\n');
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(kind: Kind, raw: &str) -> Option<String> {
        let position = Position { ms: 7, n: 1 };
        let stored = Stored { position, prev: Position::ZERO, kind, raw: raw.as_bytes().to_vec() };
        Frame::encode("e", "bff-1", &stored).map(|frame| frame.text.to_string())
    }

    #[test]
    fn an_entry_of_another_kind_is_the_frame_of_its_name() {
        let text = encode(Kind::Read, r#"{"read":"e.6-0"}"#);
        assert_eq!(text.as_deref(), Some(r#"{"type":"read","cursor":"e.7-1","read":"e.6-0"}"#));
        assert_eq!(encode(Kind::Status, "no object"), None);
        assert_eq!(encode(Kind::Unknown, r#"{"body":"b"}"#), None);
    }

    #[test]
    fn an_event_has_its_type_cursor_and_data() {
        for (frame, event) in [
            (
                r#"{"type":"notification","cursor":"e.1-0","claimed_by":"b","notification":{"body":"x"}}"#,
                "event: notification\nid: e.1-0\n",
            ),
            (r#"{"type":"goodbye","reconnect_in_ms":5}"#, "event: goodbye\n"),
            (r#"{"type":"state","state":{"cursor":"x"}}"#, "event: state\n"),
        ] {
            assert_eq!(event_of(frame), format!("{event}data: {frame}\n\n"));
        }
    }

    #[test]
    fn line_ends_inside_a_producer_s_json_do_not_end_the_event() {
        let frame = "{\"type\":\"notification\",\"cursor\":\"e.1-0\",\"notification\":{\r\n\"body\":\"x\"}}";
        let event = String::from_utf8(event_of(frame).to_vec()).unwrap();
        assert_eq!(event.matches("\n\n").count(), 1, "{event}");
        let data: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert!(serde_json::from_str::<serde_json::Value>(&data.join("\n")).is_ok());
    }
}
