use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Audience, Fields, Status};

/// How far a message between people has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MessageProgress {
    /// The id of the message, which its sender chose.
    pub id: String,
    /// Who sent it.
    pub from: String,
    /// Whom it is for.
    pub to: Audience,
    /// The last status that it has come to.
    pub status: Status,
    /// When it came to each status, RFC 3339.
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, String>"))]
    pub at: BTreeMap<Status, String>,
}

impl MessageProgress {
    /// Reads the status alone, which is all that the viewer needs.
    #[must_use]
    pub fn read_status(fields: &Fields) -> Option<Status> {
        Status::read(&fields.text("status")?)
    }
}

/// Each step of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("required" = ["id", "status", "steps", "stopped"])))]
pub struct MessageTrace {
    /// The id of the message, which its sender chose.
    pub id: String,
    /// The last status that it has come to.
    pub status: Status,
    /// What was done with it, in this order.
    pub steps: Vec<TraceStep>,
    /// Why it has come no further, in a sentence; nothing once it was acknowledged.
    pub stopped: Option<String>,
}

/// One step of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TraceStep {
    /// `accepted`, `claimed`, `routed`, `written`, `acknowledged` or `read`.
    pub step: Cow<'static, str>,
    /// When, RFC 3339.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub at: String,
    /// The replica that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// The connection that it was written to; for whoever has no key, without its last part, by which it is
    /// reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// More, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
