use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use crate::limits::NAME_MAX_BYTES;
use crate::{Fields, parse_timestamp};

/// The response of `GET /api/demo` where sign-in is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DemoState {
    /// Whether anybody can sign in as anybody.
    #[cfg_attr(feature = "schema", schemars(extend("const" = false)))]
    pub sign_in: bool,
}

/// The body of `POST /api/demo/token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignInRequest {
    /// The user to sign in as.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))]
    pub user: String,
}

/// Somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SignedIn {
    /// The token.
    pub token: String,
    /// Who it is for.
    pub user: String,
    /// When it runs out, RFC 3339.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub expires_at: String,
}

impl SignedIn {
    /// Reads one; `None` when something is missing.
    #[must_use]
    pub fn read(fields: &Fields) -> Option<Self> {
        let text = |name| fields.text(name);
        Some(Self { token: text("token")?, user: text("user")?, expires_at: text("expires_at")? })
    }

    /// Milliseconds since 1970 at which the token ends; 0 where that cannot be read.
    #[must_use]
    pub fn ends_ms(&self) -> u64 {
        parse_timestamp(&self.expires_at).unwrap_or_default()
    }
}
