use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use crate::limits::NAME_MAX_BYTES;

/// The body of `POST /api/revocations`: one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("minProperties" = 1, "maxProperties" = 1)))]
#[serde(deny_unknown_fields)]
pub struct RevocationRequest {
    /// A user: every token that was issued up to now.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The `jti` of one token.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The id of one session.
    #[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[0-9a-f]{32}$")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}
