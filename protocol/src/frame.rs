use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Cursor;

/// Whether a reader that named a cursor got everything after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// No cursor was named: from now on.
    None,
    /// Everything after the cursor follows.
    Complete,
    /// Some of it is gone; a `gap` follows.
    Gap,
}

/// Why history does not reach back to the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// Older entries were removed, by age or by count.
    Trimmed,
    /// The cursor is of another data set: Redis lost its data or was replaced.
    Epoch,
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Names this connection; the audience `connection:…` reaches it.
    pub connection: String,
    /// The replica that holds it.
    pub replica: String,
    /// The signed-in user.
    pub user: Option<String>,
    /// The browser session.
    pub session: Option<String>,
    /// Where the reader stands: a reader that receives nothing more resumes from here.
    pub cursor: String,
    /// Whether the resume was complete.
    pub resume: Resume,
    /// How often a heartbeat comes, in milliseconds.
    pub heartbeat_ms: u64,
}

/// What the server says, `type` first. A type from the future reads as [`ServerMessage::Unknown`].
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServerMessage {
    /// The first frame.
    Welcome(Welcome),
    /// One notification.
    Notification {
        /// Where the reader stands after it.
        cursor: String,
        /// The replica that won the race for it.
        claimed_by: String,
        /// The notification, in the producer's own bytes.
        notification: Box<RawValue>,
    },
    /// Something before what follows is gone.
    Gap {
        /// Where what follows begins.
        cursor: String,
        /// Why.
        reason: GapReason,
    },
    /// Nothing happened, and the connection is alive.
    Heartbeat {
        /// Where the reader stands.
        cursor: String,
    },
    /// The server is about to close.
    Goodbye {
        /// Wait this long before coming back, in milliseconds.
        reconnect_in_ms: u64,
    },
    /// Something that the client did was refused.
    Error {
        /// A word for programs.
        code: String,
        /// A sentence for people.
        detail: String,
    },
    /// A type that this version does not know; it is ignored.
    #[serde(skip)]
    Unknown,
}

impl ServerMessage {
    /// Reads one frame. (By hand, since serde cannot read raw JSON inside a tagged enum.)
    ///
    /// # Errors
    /// When the text is no JSON object with a `type`, or a known type lacks its fields.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct Notification {
            cursor: String,
            claimed_by: String,
            notification: Box<RawValue>,
        }
        #[derive(Deserialize)]
        struct Gap {
            cursor: String,
            reason: GapReason,
        }
        #[derive(Deserialize)]
        struct Heartbeat {
            cursor: String,
        }
        #[derive(Deserialize)]
        struct Goodbye {
            reconnect_in_ms: u64,
        }
        #[derive(Deserialize)]
        struct Error {
            code: String,
            detail: String,
        }

        Ok(match serde_json::from_str::<Kind<'_>>(text)?.kind.as_ref() {
            "welcome" => Self::Welcome(serde_json::from_str(text)?),
            "notification" => {
                let Notification { cursor, claimed_by, notification } = serde_json::from_str(text)?;
                Self::Notification { cursor, claimed_by, notification }
            }
            "gap" => {
                let Gap { cursor, reason } = serde_json::from_str(text)?;
                Self::Gap { cursor, reason }
            }
            "heartbeat" => {
                let Heartbeat { cursor } = serde_json::from_str(text)?;
                Self::Heartbeat { cursor }
            }
            "goodbye" => {
                let Goodbye { reconnect_in_ms } = serde_json::from_str(text)?;
                Self::Goodbye { reconnect_in_ms }
            }
            "error" => {
                let Error { code, detail } = serde_json::from_str(text)?;
                Self::Error { code, detail }
            }
            _ => Self::Unknown,
        })
    }

    /// The `type`, which is also the event name on `/sse`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Notification { .. } => "notification",
            Self::Gap { .. } => "gap",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Goodbye { .. } => "goodbye",
            Self::Error { .. } => "error",
            Self::Unknown => "unknown",
        }
    }

    /// The frame as it goes out.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The frame of one notification, around a JSON text that is embedded as it is. The bytes are the
/// same as [`ServerMessage::to_json`] gives.
#[must_use]
pub fn notification_frame(cursor: &Cursor, claimed_by: &str, notification: &str) -> String {
    let claimed_by = serde_json::Value::from(claimed_by);
    format!(
        r#"{{"type":"notification","cursor":"{cursor}","claimed_by":{claimed_by},"notification":{notification}}}"#
    )
}

/// What a client says. A type from the future reads as [`ClientMessage::Unknown`] and is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ClientMessage {
    /// Asks for a heartbeat, from clients that cannot see WebSocket pings.
    Ping,
    /// A type that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What `GET /api/notifications` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// Oldest first.
    pub items: Vec<PageItem>,
    /// The `since` of the next page, and of a reader that takes over from here.
    pub next: String,
    /// Whether history no longer reached back to `since`.
    pub gap: bool,
}

/// One notification of a page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PageItem {
    /// Where a reader stands after it.
    pub cursor: String,
    /// The replica that won the race for it.
    pub claimed_by: String,
    /// The notification, in the producer's own bytes.
    pub notification: Box<RawValue>,
}
