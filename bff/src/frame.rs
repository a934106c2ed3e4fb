use axum::extract::ws::Utf8Bytes;
use carillon_broker::Stored;
use carillon_protocol::{Cursor, Entry, Position, notification_frame};

/// One notification, encoded once a replica and shared by all its readers: nothing in it is a reader's own.
#[derive(Debug)]
pub struct Frame {
    /// Where a reader stands after it.
    pub position: Position,
    /// Milliseconds since 1970 from which on it is dropped.
    pub expires_at_ms: Option<u64>,
    /// The `notification` frame.
    pub text: Utf8Bytes,
}

impl Frame {
    /// The frame of a claimed entry; `None` for one that the strict reading refuses, which its claimer
    /// writes to the dead list and readers step over.
    #[must_use]
    pub fn encode(epoch: &str, claimed_by: &str, stored: &Stored) -> Option<Self> {
        let entry = Entry::read(&stored.raw, stored.position).ok()?;
        let cursor = Cursor { epoch: epoch.to_owned(), position: stored.position };
        Some(Self {
            position: stored.position,
            expires_at_ms: entry.expires_at_ms,
            text: notification_frame(&cursor, claimed_by, &entry.json).into(),
        })
    }
}
