use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Audience, Cursor};

/// Whether a reader that named a cursor gets all later entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// No cursor was named: the stream starts now.
    None,
    /// All entries after the cursor follow.
    Complete,
    /// Some entries are missing for good; a `gap` follows.
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
    /// The cursor is unreadable.
    Unreadable,
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Welcome {
    /// The id of this connection; the audience `connection:…` reaches it.
    pub connection: String,
    /// The replica of this connection.
    pub replica: String,
    /// The signed-in user.
    pub user: Option<String>,
    /// The sealed session, which the reader sends when it reconnects; a new one where it was renewed.
    pub session: Option<String>,
    /// The reader's cursor: without further frames it resumes from here.
    pub cursor: String,
    /// Whether the resume was complete.
    pub resume: Resume,
    /// The interval of heartbeats, in milliseconds.
    pub heartbeat_ms: u64,
    /// The cursor up to which the signed-in user has read, if that was ever recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<String>,
}

/// The status of a message between people. It only ever rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Stored, so it will not be lost.
    None,
    /// Claimed: it is in the receiver's history and is being delivered.
    Sent,
    /// A device of the receiver has acknowledged it.
    Delivered,
    /// The receiver has read it.
    Read,
}

impl Status {
    /// Returns the status as a word, on the wire and in Redis.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }

    /// Reads the word; `None` for any other.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        [Self::None, Self::Sent, Self::Delivered, Self::Read]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text).ok_or_else(|| format!("'{text}' is no status"))
    }
}

/// A frame from the server, `type` first. An unknown type is parsed as [`ServerMessage::Unknown`].
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServerMessage {
    /// The first frame.
    Welcome(Welcome),
    /// One notification.
    Notification(Delivered),
    /// Entries before the next frames are missing for good.
    Gap(Gap),
    /// The connection is alive and has nothing to send.
    Heartbeat(Heartbeat),
    /// The current state of the signed-in user.
    State(State),
    /// A raw payload that a program published for the user; it has no history.
    Raw(Raw),
    /// The status of a message that this user sent has risen.
    Status(StatusChange),
    /// The user has read further, on this device or another.
    Read(ReadPosition),
    /// Whether a user is online, for readers of the topic `presence:<user>`: when they subscribe, and at each change.
    Presence(Presence),
    /// The server is about to close.
    Goodbye(Goodbye),
    /// A message of the client was refused.
    Error(Refused),
    /// A type that this version does not know; it is ignored.
    #[serde(skip)]
    Unknown,
}

/// The fields of `notification`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Delivered {
    /// Where the reader stands after it.
    pub cursor: String,
    /// The replica that claimed it.
    pub claimed_by: String,
    /// The notification, with the producer's own bytes.
    #[cfg_attr(feature = "schema", schemars(with = "Complete"))]
    pub notification: Box<RawValue>,
}

/// The fields of `gap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    /// The cursor before the next frames.
    pub cursor: String,
    /// Why.
    pub reason: GapReason,
    /// The audience; absent means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
}

/// The fields of `heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Heartbeat {
    /// Where the reader stands.
    pub cursor: String,
}

/// The fields of `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct State {
    /// The fields of the user's hash in Redis.
    pub state: BTreeMap<String, String>,
}

/// The fields of `raw`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Raw {
    /// The payload if it is JSON, or else the payload as a string.
    pub data: Box<RawValue>,
}

/// The fields of `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatusChange {
    /// Where the reader stands after it.
    pub cursor: String,
    /// The id of the message.
    pub id: String,
    /// The new status.
    pub status: Status,
    /// When it changed, RFC 3339.
    pub at: String,
}

/// The fields of `read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReadPosition {
    /// Where the reader stands after it.
    pub cursor: String,
    /// The cursor up to which everything is read.
    pub read: String,
}

/// The fields of `presence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Presence {
    /// Where the reader stands.
    pub cursor: String,
    /// The user.
    pub user: String,
    /// Whether the user has a connection now.
    pub online: bool,
    /// Since when the user is online, RFC 3339; absent while offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// The fields of `goodbye`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Goodbye {
    /// The pause before a reconnect, in milliseconds.
    pub reconnect_in_ms: u64,
}

/// The fields of `error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refused {
    /// The error code, for programs.
    pub code: String,
    /// The detail, for people.
    pub detail: String,
    /// The id or topic that the refused message named.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

impl ServerMessage {
    /// Parses a frame. It is written by hand, since serde cannot read raw JSON inside a tagged enum.
    ///
    /// # Errors
    /// When the text is not a JSON object with a `type`, or a known type lacks its fields.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(rename = "type", borrow)]
            kind: Cow<'a, str>,
        }
        Ok(match serde_json::from_str::<Kind<'_>>(text)?.kind.as_ref() {
            "welcome" => Self::Welcome(serde_json::from_str(text)?),
            "notification" => Self::Notification(serde_json::from_str(text)?),
            "gap" => Self::Gap(serde_json::from_str(text)?),
            "heartbeat" => Self::Heartbeat(serde_json::from_str(text)?),
            "state" => Self::State(serde_json::from_str(text)?),
            "raw" => Self::Raw(serde_json::from_str(text)?),
            "status" => Self::Status(serde_json::from_str(text)?),
            "read" => Self::Read(serde_json::from_str(text)?),
            "presence" => Self::Presence(serde_json::from_str(text)?),
            "goodbye" => Self::Goodbye(serde_json::from_str(text)?),
            "error" => Self::Error(serde_json::from_str(text)?),
            _ => Self::Unknown,
        })
    }

    /// Returns the error frame of a refused message.
    #[must_use]
    pub fn error(code: &str, detail: impl Into<String>, about: Option<String>) -> Self {
        Self::Error(Refused { code: code.to_owned(), detail: detail.into(), about })
    }

    /// Returns a heartbeat with a cursor.
    #[must_use]
    pub fn heartbeat(cursor: String) -> Self {
        Self::Heartbeat(Heartbeat { cursor })
    }

    /// Returns the reader's cursor after this frame, for frames that move it.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        match self {
            Self::Welcome(Welcome { cursor, .. })
            | Self::Notification(Delivered { cursor, .. })
            | Self::Gap(Gap { cursor, .. })
            | Self::Heartbeat(Heartbeat { cursor })
            | Self::Status(StatusChange { cursor, .. })
            | Self::Read(ReadPosition { cursor, .. })
            | Self::Presence(Presence { cursor, .. }) => Some(cursor),
            Self::State(_) | Self::Raw(_) | Self::Goodbye(_) | Self::Error(_) | Self::Unknown => None,
        }
    }

    /// The `type`, which is also the event name on `/sse`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Notification(_) => "notification",
            Self::Gap(_) => "gap",
            Self::Heartbeat(_) => "heartbeat",
            Self::State(_) => "state",
            Self::Raw(_) => "raw",
            Self::Status(_) => "status",
            Self::Read(_) => "read",
            Self::Presence(_) => "presence",
            Self::Goodbye(_) => "goodbye",
            Self::Error(_) => "error",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the frame as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Returns the frame of a notification, with its JSON embedded unchanged. The bytes are the same as those of
/// [`ServerMessage::to_json`].
#[must_use]
pub fn notification_frame(cursor: &Cursor, claimed_by: &str, notification: &str) -> String {
    let claimed_by = serde_json::Value::from(claimed_by);
    format!(
        r#"{{"type":"notification","cursor":"{cursor}","claimed_by":{claimed_by},"notification":{notification}}}"#
    )
}

/// Returns the frame of an entry that is not a notification, whose text is a JSON object with the frame's own fields.
#[must_use]
pub fn kind_frame(kind: &str, cursor: &Cursor, fields: &str) -> Option<String> {
    let rest = fields.trim_ascii_start().strip_prefix('{')?;
    Some(format!(r#"{{"type":"{kind}","cursor":"{cursor}",{rest}"#))
}

/// A notification as readers get it: with the fields that the claim adds.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(extend("required" = ["id", "created_at"]))]
#[expect(dead_code, reason = "only its schema is of use")]
pub(crate) struct Complete(crate::Notification);
