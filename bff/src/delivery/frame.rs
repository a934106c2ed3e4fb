use std::sync::Arc;

use carillon_broker::{EntryKind, MessageRef, Stored};
use carillon_protocol::{Audience, Cursor, Entry, Position, kind_frame, notification_frame};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// An entry encoded as a frame, once on each replica and shared by all its readers. No field depends on the reader.
#[derive(Debug)]
pub struct Frame {
    /// The position of a reader that has received it.
    pub position: Position,
    /// The kind of the entry, which is the frame's `type`.
    pub kind: EntryKind,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// Set for a notification from one user to another, which may be a message of the ledger.
    pub message: Option<Arc<MessageRef>>,
    /// The JSON of the frame.
    pub text: Utf8Bytes,
}

impl Frame {
    /// Encodes an entry. Returns `None` for a kind that this version does not know, and for a notification that the strict
    /// reading refuses, which its claimer writes to the dead list. Readers skip both.
    pub fn encode(epoch: &str, claimed_by: &str, stored: &Stored) -> Option<Self> {
        let Stored { position, kind, raw, .. } = stored;
        let cursor = Cursor { epoch: epoch.to_owned(), position: *position };
        let (expires_at_ms, message, text) = match kind {
            EntryKind::Notification => {
                let entry = Entry::read(raw, *position).ok()?;
                let message = match (&entry.from, &entry.audience) {
                    (Some(from), Audience::User(_)) => {
                        Some(Arc::new(MessageRef { from: from.clone(), id: entry.id.clone() }))
                    }
                    _ => None,
                };
                (entry.expires_at_ms, message, notification_frame(&cursor, claimed_by, &entry.json))
            }
            EntryKind::Unknown => return None,
            _ => (None, None, kind_frame(kind.into_str(), &cursor, std::str::from_utf8(raw).ok()?)?),
        };
        Some(Self { position: *position, kind: *kind, expires_at_ms, message, text: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(kind: EntryKind, raw: &str) -> Option<String> {
        let position = Position { ms: 7, n: 1 };
        let stored = Stored { position, prev: Position::ZERO, kind, raw: raw.as_bytes().to_vec() };
        Frame::encode("e", "bff-1", &stored).map(|frame| frame.text.to_string())
    }

    #[test]
    fn an_entry_that_is_not_a_notification_becomes_a_frame_of_its_kind() {
        let text = encode(EntryKind::Read, r#"{"read":"e.6-0"}"#);
        assert_eq!(text.as_deref(), Some(r#"{"type":"read","cursor":"e.7-1","read":"e.6-0"}"#));
        assert_eq!(encode(EntryKind::Status, "no object"), None);
        assert_eq!(encode(EntryKind::Unknown, r#"{"body":"b"}"#), None);
    }
}
