use thiserror::Error;

/// Maximum bytes of a token; a longer one is refused without being read.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Why a token is refused. The text helps the issuer of the token, and reveals nothing about keys, other users, or expected
/// values.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// This service has no keys to verify tokens.
    #[error(
        "the service has no key to verify tokens: start it with JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL, or send no token"
    )]
    NoKey,
    /// Longer than [`TOKEN_MAX_BYTES`].
    #[error("a token has at most {TOKEN_MAX_BYTES} bytes")]
    TooLong,
    /// Not three parts, or an invalid header.
    #[error(
        "this is not a signed JWT: three base64url parts with dots between, whose header names one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, Ed25519"
    )]
    Malformed,
    /// A header with `crit`.
    #[error("the token's header requires unknown extensions (crit)")]
    Critical,
    /// No key of this service fits the algorithm in the header.
    #[error("no key of this service is for the token's algorithm (alg)")]
    Algorithm,
    /// No key of this service has the name in the header.
    #[error("the token names a key (kid) that this service does not know")]
    UnknownKey,
    /// It was signed with another key, or changed.
    #[error("the token's signature is invalid: it was made with another key, or the token was changed")]
    Signature,
    /// The claims are not a JSON object.
    #[error("the token's claims are not a JSON object")]
    NoClaims,
    /// A claim has an invalid value.
    #[error("the token's claim '{claim}' must be {must_be}")]
    Claim {
        /// The name of the claim.
        claim: String,
        /// The required value.
        must_be: &'static str,
    },
    /// A required claim is missing.
    #[error("the token lacks the claim '{0}'")]
    Missing(String),
    /// `exp` is in the past.
    #[error("the token has expired: sign in again")]
    Expired,
    /// `nbf` is in the future.
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    /// `iat` is in the future.
    #[error("the token was issued in the future (iat): compare the clocks")]
    IssuedLater,
    /// `exp` is too far in the future.
    #[error(
        "the token lasts longer (exp) than this service accepts, which is 30 days unless TOKEN_LIFETIME_MAX is set: issue shorter ones"
    )]
    TooLongLived,
    /// `iss` is not one of those configured.
    #[error("the token is from another issuer (iss)")]
    Issuer,
    /// `aud` names none of those configured.
    #[error("the token is for another audience (aud)")]
    Audience,
    /// There is an `aud` and none is configured: RFC 7519, section 4.1.3.
    #[error("the token names an audience (aud) and this service has no name: start it with JWT_AUDIENCE")]
    NoAudience,
    /// The keys could not be fetched. The same token may be valid later.
    #[error("the keys to verify this token are not available now: try again shortly")]
    KeysAway,
}

impl TokenError {
    /// Whether the same token may be valid a little later, so that the response is a 503 and not a 401.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::KeysAway)
    }

    /// Whether another set of keys could verify the token.
    pub(super) fn is_for_want_of_a_key(&self) -> bool {
        matches!(self, Self::Algorithm | Self::UnknownKey | Self::Signature)
    }

    /// Returns the reason as a word, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::TooLong | Self::Malformed | Self::NoClaims => "malformed",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Claim { .. } | Self::Missing(_) => "claim",
            Self::Expired => "expired",
            Self::NotYetValid | Self::IssuedLater => "early",
            Self::TooLongLived => "too_long_lived",
            Self::Issuer => "issuer",
            Self::Audience | Self::NoAudience => "audience",
            Self::KeysAway => "keys_away",
        }
    }
}
