use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What a client says, `type` first. A type from the future reads as [`ClientMessage::Unknown`] and is ignored.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ClientMessage {
    /// These notifications are on this reader's screen.
    Ack {
        /// Their ids.
        ids: Vec<String>,
    },
    /// The user has read these messages, and everything up to a cursor.
    Read {
        /// Everything up to here is read.
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// Messages from other users that are read.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ids: Vec<String>,
    },
    /// Sends a notification to a user or a topic, in the name of the signed-in user.
    Send {
        /// The notification; its `id` makes a repeated send harmless.
        #[cfg_attr(feature = "schema", schemars(with = "crate::Notification"))]
        notification: Box<RawValue>,
    },
    /// Something for the application behind the service.
    Message {
        /// Makes a repeated message harmless.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// A text.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// Anything else.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Box<RawValue>>,
    },
    /// Reads a topic too, from now on.
    Subscribe {
        /// Its name.
        topic: String,
    },
    /// Reads a topic no more.
    Unsubscribe {
        /// Its name.
        topic: String,
    },
    /// A fresh token of the same user, in place of the one that runs out.
    Token {
        /// The token.
        token: String,
    },
    /// Asks for a heartbeat, from clients that cannot see WebSocket pings.
    Ping,
    /// A type that this version does not know.
    #[serde(skip)]
    Unknown,
}

impl ClientMessage {
    /// Reads one message.
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
        struct Ids {
            ids: Vec<String>,
        }
        #[derive(Deserialize)]
        struct Read {
            cursor: Option<String>,
            #[serde(default)]
            ids: Vec<String>,
        }
        #[derive(Deserialize)]
        struct Send {
            notification: Box<RawValue>,
        }
        #[derive(Deserialize)]
        struct Message {
            id: Option<String>,
            message: Option<String>,
            data: Option<Box<RawValue>>,
        }
        #[derive(Deserialize)]
        struct Topic {
            topic: String,
        }
        #[derive(Deserialize)]
        struct Token {
            token: String,
        }

        Ok(match serde_json::from_str::<Kind<'_>>(text)?.kind.as_ref() {
            "ack" => {
                let Ids { ids } = serde_json::from_str(text)?;
                Self::Ack { ids }
            }
            "read" => {
                let Read { cursor, ids } = serde_json::from_str(text)?;
                Self::Read { cursor, ids }
            }
            "send" => {
                let Send { notification } = serde_json::from_str(text)?;
                Self::Send { notification }
            }
            "message" => {
                let Message { id, message, data } = serde_json::from_str(text)?;
                Self::Message { id, message, data }
            }
            "subscribe" => {
                let Topic { topic } = serde_json::from_str(text)?;
                Self::Subscribe { topic }
            }
            "unsubscribe" => {
                let Topic { topic } = serde_json::from_str(text)?;
                Self::Unsubscribe { topic }
            }
            "token" => {
                let Token { token } = serde_json::from_str(text)?;
                Self::Token { token }
            }
            "ping" => Self::Ping,
            _ => Self::Unknown,
        })
    }

    /// The `type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ack { .. } => "ack",
            Self::Read { .. } => "read",
            Self::Send { .. } => "send",
            Self::Message { .. } => "message",
            Self::Subscribe { .. } => "subscribe",
            Self::Unsubscribe { .. } => "unsubscribe",
            Self::Token { .. } => "token",
            Self::Ping => "ping",
            Self::Unknown => "unknown",
        }
    }

    /// The message as it goes out.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
