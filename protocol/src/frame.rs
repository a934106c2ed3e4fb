use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Cursor;

/// Whether a reader that named a cursor got everything after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// Older entries were removed, by age or by count.
    Trimmed,
    /// The cursor is of another data set: Redis lost its data or was replaced.
    Epoch,
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Welcome {
    /// Names this connection; the audience `connection:…` reaches it.
    pub connection: String,
    /// The replica that holds it.
    pub replica: String,
    /// The signed-in user.
    pub user: Option<String>,
    /// The sealed session, to be named again when the reader comes back; a new one where it was renewed.
    pub session: Option<String>,
    /// Where the reader stands: a reader that receives nothing more resumes from here.
    pub cursor: String,
    /// Whether the resume was complete.
    pub resume: Resume,
    /// How often a heartbeat comes, in milliseconds.
    pub heartbeat_ms: u64,
    /// The cursor up to which the signed-in user has read, where that was ever said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
}

/// How far a message between people has come. It only ever rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Stored: it will not be lost.
    None,
    /// Claimed, in the receiver's history and on its way.
    Sent,
    /// A device of the receiver said that it shows it.
    Delivered,
    /// The receiver has read it.
    Read,
}

impl Status {
    /// The word on the wire and in Redis.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }
}

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::None, Self::Sent, Self::Delivered, Self::Read];
        all.into_iter().find(|status| status.as_str() == text).ok_or_else(|| format!("'{text}' is no status"))
    }
}

/// What the server says, `type` first. A type from the future reads as [`ServerMessage::Unknown`].
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
        #[cfg_attr(feature = "schema", schemars(with = "Delivered"))]
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
    /// What the signed-in user's state is now.
    State {
        /// The fields of the user's hash.
        state: BTreeMap<String, String>,
    },
    /// Something that a program published for the user; there is no history of it.
    Raw {
        /// The payload where it is JSON, else the payload as a string.
        data: Box<RawValue>,
    },
    /// A message that this user sent has come further.
    Status {
        /// Where the reader stands after it.
        cursor: String,
        /// The id of the message.
        id: String,
        /// How far.
        status: Status,
        /// When, RFC 3339.
        at: String,
    },
    /// The user has read further, on whichever device.
    Read {
        /// Where the reader stands after it.
        cursor: String,
        /// The cursor up to which everything is read.
        read: String,
    },
    /// A user came or went, for readers of the topic `presence:<user>`.
    Presence {
        /// Where the reader stands after it.
        cursor: String,
        /// Who.
        user: String,
        /// Whether the user has a connection now.
        online: bool,
        /// Since when, RFC 3339.
        at: String,
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
        /// The id or topic that the refused message named.
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        about: Option<String>,
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
        fn read<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
            serde_json::from_str(text)
        }

        Ok(match read::<Kind<'_>>(text)?.kind.as_ref() {
            "welcome" => Self::Welcome(read(text)?),
            "notification" => {
                let fields::Notification { cursor, claimed_by, notification } = read(text)?;
                Self::Notification { cursor, claimed_by, notification }
            }
            "gap" => {
                let fields::Gap { cursor, reason } = read(text)?;
                Self::Gap { cursor, reason }
            }
            "heartbeat" => {
                let fields::Heartbeat { cursor } = read(text)?;
                Self::Heartbeat { cursor }
            }
            "state" => {
                let fields::State { state } = read(text)?;
                Self::State { state }
            }
            "raw" => {
                let fields::Raw { data } = read(text)?;
                Self::Raw { data }
            }
            "status" => {
                let fields::Status { cursor, id, status, at } = read(text)?;
                Self::Status { cursor, id, status, at }
            }
            "read" => {
                let fields::Read { cursor, read } = read(text)?;
                Self::Read { cursor, read }
            }
            "presence" => {
                let fields::Presence { cursor, user, online, at } = read(text)?;
                Self::Presence { cursor, user, online, at }
            }
            "goodbye" => {
                let fields::Goodbye { reconnect_in_ms } = read(text)?;
                Self::Goodbye { reconnect_in_ms }
            }
            "error" => {
                let fields::Error { code, detail, about } = read(text)?;
                Self::Error { code, detail, about }
            }
            _ => Self::Unknown,
        })
    }

    /// A refusal of something that the client said.
    #[must_use]
    pub fn error(code: &str, detail: impl Into<String>, about: Option<String>) -> Self {
        Self::Error { code: code.to_owned(), detail: detail.into(), about }
    }

    /// Where the reader stands after this frame, for those that move it.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        match self {
            Self::Welcome(Welcome { cursor, .. })
            | Self::Notification { cursor, .. }
            | Self::Gap { cursor, .. }
            | Self::Heartbeat { cursor }
            | Self::Status { cursor, .. }
            | Self::Read { cursor, .. }
            | Self::Presence { cursor, .. } => Some(cursor),
            Self::State { .. }
            | Self::Raw { .. }
            | Self::Goodbye { .. }
            | Self::Error { .. }
            | Self::Unknown => None,
        }
    }

    /// The `type`, which is also the event name on `/sse`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Notification { .. } => "notification",
            Self::Gap { .. } => "gap",
            Self::Heartbeat { .. } => "heartbeat",
            Self::State { .. } => "state",
            Self::Raw { .. } => "raw",
            Self::Status { .. } => "status",
            Self::Read { .. } => "read",
            Self::Presence { .. } => "presence",
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

/// The frame of an entry of another kind than a notification, whose text is a JSON object with the
/// frame's own fields.
#[must_use]
pub fn kind_frame(kind: &str, cursor: &Cursor, fields: &str) -> Option<String> {
    let rest = fields.trim_ascii_start().strip_prefix('{')?;
    Some(format!(r#"{{"type":"{kind}","cursor":"{cursor}",{rest}"#))
}

/// A notification as readers get it: with all that the claim puts in where it is missing.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(extend("required" = ["id", "created_at"]))]
#[expect(dead_code, reason = "only its schema is of use")]
pub(crate) struct Delivered(crate::Notification);

/// The fields of each frame, since serde cannot read raw JSON inside a tagged enum.
mod fields {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::GapReason;

    #[derive(Deserialize)]
    pub(super) struct Notification {
        pub(super) cursor: String,
        pub(super) claimed_by: String,
        pub(super) notification: Box<RawValue>,
    }
    #[derive(Deserialize)]
    pub(super) struct Gap {
        pub(super) cursor: String,
        pub(super) reason: GapReason,
    }
    #[derive(Deserialize)]
    pub(super) struct Heartbeat {
        pub(super) cursor: String,
    }
    #[derive(Deserialize)]
    pub(super) struct State {
        pub(super) state: BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    pub(super) struct Raw {
        pub(super) data: Box<RawValue>,
    }
    #[derive(Deserialize)]
    pub(super) struct Status {
        pub(super) cursor: String,
        pub(super) id: String,
        pub(super) status: super::Status,
        pub(super) at: String,
    }
    #[derive(Deserialize)]
    pub(super) struct Read {
        pub(super) cursor: String,
        pub(super) read: String,
    }
    #[derive(Deserialize)]
    pub(super) struct Presence {
        pub(super) cursor: String,
        pub(super) user: String,
        pub(super) online: bool,
        pub(super) at: String,
    }
    #[derive(Deserialize)]
    pub(super) struct Goodbye {
        pub(super) reconnect_in_ms: u64,
    }
    #[derive(Deserialize)]
    pub(super) struct Error {
        pub(super) code: String,
        pub(super) detail: String,
        #[serde(rename = "ref")]
        pub(super) about: Option<String>,
    }
}
