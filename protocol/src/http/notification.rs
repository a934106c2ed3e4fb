use serde::{Deserialize, Serialize};

use crate::Status;

/// What `POST /api/notifications` answers. The request is a [`crate::Notification`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Published {
    /// The id of the notification, given where it had none.
    pub id: String,
    /// How far it has come, where a user sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}
