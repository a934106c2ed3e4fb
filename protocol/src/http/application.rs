use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What is posted to the application when a reader sends it something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApplicationMessage {
    /// The id that the reader gave it, or one that was given to it here.
    pub id: String,
    /// The session of the reader, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The signed-in user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The connection on which it was sent.
    pub connection: String,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Any JSON, in the reader's own bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// When it was received, RFC 3339.
    pub at: String,
}
