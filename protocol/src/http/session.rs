use serde::{Deserialize, Serialize};

use crate::Fields;

/// An open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionOpened {
    /// Its sealed token, which opens it.
    pub session: String,
    /// Its id, by which an application addresses it, and which opens nothing.
    pub id: String,
    /// When the token runs out, RFC 3339.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub expires_at: String,
}

impl SessionOpened {
    /// Reads the token alone, which is all that the viewer needs.
    #[must_use]
    pub fn read_token(fields: &Fields) -> Option<String> {
        fields.text("session")
    }
}
