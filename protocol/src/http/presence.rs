use serde::{Deserialize, Serialize};

/// Whether a user is online.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UserPresence {
    /// The user.
    pub user: String,
    /// Whether the user has a connection anywhere, or lost the last one a moment ago.
    pub online: bool,
    /// Open ones, on all replicas.
    pub connections: usize,
    /// Since when the user is online, RFC 3339.
    pub since: Option<String>,
}

/// What `GET /api/presence` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PresenceList {
    /// The users, in the order of the request.
    pub users: Vec<UserPresence>,
}
