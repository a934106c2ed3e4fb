use std::str::FromStr;

use carillon_service::parse_duration;

/// The default maximum lifetime of a token, in seconds.
pub const EXPIRY_MAX_S: u64 = 30 * 86_400;

/// A day: revocations are kept that much longer than tokens are valid.
const MORE_S: u64 = 86_400;
/// The minimum time that revocations are kept, in seconds, even if all tokens are shorter.
pub const REVOCATIONS_KEEP_MIN_S: u64 = EXPIRY_MAX_S + MORE_S;
/// The time that revocations are kept where tokens never expire: a hundred years, in seconds.
pub const KEEP_ALL_S: u64 = 100 * 365 * 86_400;
/// The end of a token without `exp`: the last second of the year 9999.
const NEVER_S: u64 = 253_402_300_799;

/// How long a token may be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenLifetime {
    /// This many seconds; `exp` is required.
    AtMost(u64),
    /// For ever: `exp` may be missing.
    Any,
}

impl Default for TokenLifetime {
    fn default() -> Self {
        Self::AtMost(EXPIRY_MAX_S)
    }
}

impl TokenLifetime {
    /// Returns the end of a token; `None` where `exp` is required and missing.
    pub(super) fn end_s(self, exp: Option<u64>) -> Option<u64> {
        match self {
            Self::AtMost(_) => exp,
            Self::Any => exp.or(Some(NEVER_S)),
        }
        .map(|end_s| end_s.min(NEVER_S))
    }

    /// Whether this many seconds are too many.
    pub(super) fn is_passed_by(self, seconds: u64) -> bool {
        matches!(self, Self::AtMost(max) if seconds > max)
    }

    /// Returns how long revocations are kept, in seconds: longer than any token is valid, so that no token outlives its
    /// revocation.
    pub fn revocations_keep_s(self) -> u64 {
        match self {
            Self::AtMost(max) => max.saturating_add(MORE_S).clamp(REVOCATIONS_KEEP_MIN_S, KEEP_ALL_S),
            Self::Any => KEEP_ALL_S,
        }
    }
}

impl FromStr for TokenLifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == "none" {
            return Ok(Self::Any);
        }
        let duration = parse_duration(text).map_err(|error| format!("{error}, 30d, or none"))?;
        Ok(Self::AtMost(duration.as_secs().max(1)))
    }
}

#[cfg(test)]
mod tests {
    use carillon_harness::Signer;
    use serde_json::{Value, json};

    use super::*;
    use crate::options::IdentityOptions;
    use crate::token::TokenError;
    use crate::token::tests::{NOW_S, SECRET, secret, verify};

    #[test]
    fn an_option_sets_how_long_a_token_may_be_valid() {
        let lasting = |text: &str| IdentityOptions { token_lifetime_max: text.parse().unwrap(), ..secret() };
        let signed = |claims: Value| Signer::secret(SECRET).token(&claims);
        let of = |days: u64| signed(json!({ "user_id": "ann", "iat": NOW_S, "exp": NOW_S + days * 86_400 }));
        assert_eq!(lasting("30d").token_lifetime_max, TokenLifetime::default());
        for (option, days, is_good) in [
            ("30d", 30, true),
            ("30d", 31, false),
            ("1h", 1, false),
            ("365d", 365, true),
            ("365d", 366, false),
            ("none", 40_000, true),
        ] {
            assert_eq!(verify(&lasting(option), &of(days)).is_ok(), is_good, "{option} {days}");
        }
        let endless = signed(json!({ "user_id": "ann" }));
        assert_eq!(verify(&lasting("365d"), &endless), Err(TokenError::Missing("exp".to_owned())));
        let identity = verify(&lasting("none"), &endless).unwrap();
        assert!(
            identity.expires_at_ms > NOW_S * 2_000 && identity.issued_at_s == 0,
            "any revocation ends it"
        );
        // No token and no session outlives its revocation.
        let keeps =
            ["1h", "365d", "none"].map(|text| text.parse::<TokenLifetime>().unwrap().revocations_keep_s());
        assert_eq!(keeps, [31 * 86_400, 366 * 86_400, KEEP_ALL_S]);
        assert!("for ever".parse::<TokenLifetime>().is_err() && "0s".parse::<TokenLifetime>().is_err());
    }
}
