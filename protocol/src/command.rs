use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A message from a client, `type` first. An unknown type is parsed as [`ClientMessage::Unknown`] and ignored.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ClientMessage {
    /// The first message of a client that names the subprotocol `carillon` without a token beside it.
    Hello(Hello),
    /// Acknowledges notifications that are on this reader's screen.
    Ack(Ack),
    /// Marks these messages, and everything up to a cursor, as read by the user.
    Read(Read),
    /// Sends a notification to a user or a topic, in the name of the signed-in user.
    Send(Send),
    /// A message for the application behind the service.
    Message(Message),
    /// Subscribes to a topic.
    Subscribe(Subscribe),
    /// Unsubscribes from a topic.
    Unsubscribe(Unsubscribe),
    /// A new token of the same user, in place of the one that expires.
    Token(Token),
    /// Requests a heartbeat, for clients that cannot see WebSocket pings.
    Ping,
    /// A type that this version does not know.
    #[serde(skip)]
    Unknown,
}

/// The client's credentials and cursor, so that no secret is in a URL. An empty string counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hello {
    /// A token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A sealed session, or `new`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Topics to read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// The last cursor that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// The fields of `ack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ack {
    /// The notifications to acknowledge.
    pub ids: Vec<Named>,
}

/// The fields of `read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Read {
    /// Everything up to here is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Messages from other users that are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<Named>,
}

/// Names a notification: ids are unique for each sender only. A bare id names the newest notification with this id that was
/// sent on this connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Named {
    /// With its sender.
    Sent {
        /// The sender.
        from: String,
        /// Its id.
        id: String,
    },
    /// By its id alone.
    Id(String),
}

/// The fields of `send`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Send {
    /// The notification; its `id` makes a repeated send harmless.
    #[cfg_attr(feature = "schema", schemars(with = "crate::Notification"))]
    pub notification: Box<RawValue>,
}

/// The fields of `message`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Message {
    /// Makes a repeated message harmless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The text of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Any other JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

/// The fields of `subscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Subscribe {
    /// The name of the topic.
    pub topic: String,
    /// The last cursor at which the client had the topic: its missed entries are sent first. Without it, the subscription
    /// starts now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// The fields of `unsubscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unsubscribe {
    /// The name of the topic.
    pub topic: String,
}

/// The fields of `token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Token {
    /// The token.
    pub token: String,
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Sent { from: String, id: String },
            Id(String),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Sent { from, id } => Self::Sent { from, id },
            Either::Id(id) => Self::Id(id),
        })
    }
}

impl ClientMessage {
    /// Parses a message. It is written by hand, since serde cannot read raw JSON inside a tagged enum.
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
            "hello" => Self::Hello(serde_json::from_str(text)?),
            "ack" => Self::Ack(serde_json::from_str(text)?),
            "read" => Self::Read(serde_json::from_str(text)?),
            "send" => Self::Send(serde_json::from_str(text)?),
            "message" => Self::Message(serde_json::from_str(text)?),
            "subscribe" => Self::Subscribe(serde_json::from_str(text)?),
            "unsubscribe" => Self::Unsubscribe(serde_json::from_str(text)?),
            "token" => Self::Token(serde_json::from_str(text)?),
            "ping" => Self::Ping,
            _ => Self::Unknown,
        })
    }

    /// The `type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Ack(_) => "ack",
            Self::Read(_) => "read",
            Self::Send(_) => "send",
            Self::Message(_) => "message",
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe(_) => "unsubscribe",
            Self::Token(_) => "token",
            Self::Ping => "ping",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the message as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
