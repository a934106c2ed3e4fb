use thiserror::Error;

/// Longest token, in bytes; a longer one is refused unread.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Why a token is refused. The text helps whoever made the token and tells nothing of keys, of other
/// users, or of what was expected instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// This service checks no tokens.
    #[error(
        "no key is configured here, so no token can be checked: start with JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL, or come without a token"
    )]
    NoKey,
    /// Longer than [`TOKEN_MAX_BYTES`].
    #[error("a token has at most {TOKEN_MAX_BYTES} bytes")]
    TooLong,
    /// Not three parts, or a header that is not one.
    #[error(
        "this is no signed JWT: three base64url parts with dots between, whose header names one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, Ed25519"
    )]
    Malformed,
    /// A header with `crit`.
    #[error("the token's header demands extensions (crit) that are not known here")]
    Critical,
    /// No key here is of a kind for the algorithm that the header names.
    #[error("the token's algorithm (alg) is none that the keys of this service are for")]
    Algorithm,
    /// No key here has the name in the header.
    #[error("the token names a key (kid) that this service does not know")]
    UnknownKey,
    /// Signed with another key, or changed since.
    #[error("the token's signature is wrong: it was made with another key, or the token was changed")]
    Signature,
    /// The claims are no JSON object.
    #[error("the token's claims are no JSON object")]
    NoClaims,
    /// A claim that is not what it has to be.
    #[error("the token's claim '{claim}' must be {must_be}")]
    Claim {
        /// Its name.
        claim: String,
        /// What it has to be.
        must_be: &'static str,
    },
    /// A claim that is needed.
    #[error("the token lacks the claim '{0}'")]
    Missing(String),
    /// `exp` is past.
    #[error("the token has expired: sign in again")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    /// `iat` is still to come.
    #[error("the token was issued in the future (iat): compare the clocks")]
    IssuedLater,
    /// `exp` is too far away.
    #[error(
        "the token lasts longer (exp) than this service takes, which is 30 days unless TOKEN_LIFETIME_MAX says otherwise: issue shorter ones"
    )]
    TooLongLived,
    /// `iss` is not one of those configured.
    #[error("the token is from another issuer (iss)")]
    Issuer,
    /// `aud` names none of those configured.
    #[error("the token is for another audience (aud)")]
    Audience,
    /// There is an `aud` and none is configured: RFC 7519, section 4.1.3.
    #[error(
        "the token names an audience (aud) and this service has no name of its own: start it with JWT_AUDIENCE"
    )]
    NoAudience,
    /// The keys were asked for and did not come. Later, the same token may be good.
    #[error("the keys to check this token with cannot be had right now: try again shortly")]
    KeysAway,
}

impl TokenError {
    /// Whether the same token may be good a little later: a 503 rather than a 401.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::KeysAway)
    }

    /// Whether another set of keys could make the token good.
    pub(super) fn is_for_want_of_a_key(&self) -> bool {
        matches!(self, Self::Algorithm | Self::UnknownKey | Self::Signature)
    }

    /// One word for metrics.
    #[must_use]
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
