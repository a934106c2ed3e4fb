use carillon_protocol::Audience;
use carillon_protocol::limits::{NAME_MAX_BYTES, TOPICS_MAX};
use serde_json::{Map, Value};

use super::{Identity, LEEWAY_S, MaySend, TokenError, TokenLifetime, TopicPattern};

/// The required claims of a token with a valid signature.
#[derive(Clone, Debug)]
pub(super) struct Checks {
    /// The names of this service; without any, a token must not have an `aud`.
    pub(super) audiences: Vec<String>,
    /// The accepted issuers; without any, every holder of a key.
    pub(super) issuers: Vec<String>,
    /// How long a token may be valid.
    pub(super) lifetime: TokenLifetime,
    /// The claim that names the user.
    pub(super) user_claim: String,
}

impl Checks {
    pub(super) fn identity(&self, claims: &Map<String, Value>, now_ms: u64) -> Result<Identity, TokenError> {
        let now_s = now_ms / 1_000;
        let expires_s = self.lifetime.end_s(seconds(claims, "exp")?).ok_or_else(|| missing("exp"))?;
        let issued_s = seconds(claims, "iat")?;
        times(now_s, expires_s, seconds(claims, "nbf")?, issued_s)?;
        // Counted from when it was issued, so that a token that lasts too long does not become valid near its end, when its
        // revocation has been dropped.
        if self.lifetime.is_passed_by(expires_s.saturating_sub(issued_s.unwrap_or(now_s))) {
            return Err(TokenError::TooLongLived);
        }
        self.issuer(claims)?;
        self.audience(claims)?;
        let expires_at_ms = (expires_s + LEEWAY_S) * 1_000;
        Ok(Identity {
            user: self.user(claims)?,
            expires_at_ms,
            issued_at_s: issued_s.unwrap_or(0),
            token_id: token_id(claims)?,
            topics: topics(claims)?,
            send: send(claims)?,
        })
    }

    fn issuer(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        if self.issuers.is_empty() {
            return Ok(());
        }
        match get(claims, "iss") {
            None => Err(missing("iss")),
            Some(Value::String(issuer)) if self.issuers.contains(issuer) => Ok(()),
            Some(_) => Err(TokenError::Issuer),
        }
    }

    /// RFC 7519, section 4.1.3: a service whose name is not in `aud` must refuse the token.
    fn audience(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let is_ours =
            |value: &Value| value.as_str().is_some_and(|name| self.audiences.iter().any(|own| own == name));
        match get(claims, "aud") {
            None if self.audiences.is_empty() => Ok(()),
            None => Err(missing("aud")),
            Some(_) if self.audiences.is_empty() => Err(TokenError::NoAudience),
            Some(Value::Array(names)) if names.iter().any(is_ours) => Ok(()),
            Some(name) if is_ours(name) => Ok(()),
            Some(_) => Err(TokenError::Audience),
        }
    }

    fn user(&self, claims: &Map<String, Value>) -> Result<String, TokenError> {
        let user = match get(claims, &self.user_claim) {
            None => return Err(missing(&self.user_claim)),
            Some(Value::String(user)) => user.clone(),
            // A rounded number may be the id of another user.
            Some(Value::Number(user)) if user.is_i64() || user.is_u64() => user.to_string(),
            Some(_) => return Err(wrong(&self.user_claim, "a string, or an integer of at most 64 bits")),
        };
        if Audience::named("user", &user).is_err() {
            return Err(wrong(&self.user_claim, "1 to 128 bytes long, and not end in ':state'"));
        }
        Ok(user)
    }
}

/// Checks the times of a token, in seconds since 1970.
fn times(now: u64, expires: u64, not_before: Option<u64>, issued: Option<u64>) -> Result<(), TokenError> {
    if expires.saturating_add(LEEWAY_S) <= now {
        return Err(TokenError::Expired);
    }
    if not_before.is_some_and(|begins| begins > now + LEEWAY_S) {
        return Err(TokenError::NotYetValid);
    }
    // A token issued in the future could not be revoked.
    if issued.is_some_and(|issued| issued > now + LEEWAY_S) {
        return Err(TokenError::IssuedLater);
    }
    Ok(())
}

/// Returns a claim; null counts as absent.
fn get<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).filter(|value| !value.is_null())
}

/// Returns a time in seconds since 1970, which may have a fraction (RFC 7519, section 2).
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, TokenError> {
    let Some(value) = get(claims, name) else { return Ok(None) };
    let number = value.as_u64().or_else(|| {
        let fraction = value.as_f64().filter(|number| (0.0..9e15).contains(number))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        Some(fraction as u64)
    });
    number.map(Some).ok_or_else(|| wrong(name, "a number of seconds since 1970"))
}

fn token_id(claims: &Map<String, Value>) -> Result<Option<String>, TokenError> {
    match get(claims, "jti") {
        None => Ok(None),
        Some(Value::String(id)) if (1..=NAME_MAX_BYTES).contains(&id.len()) => Ok(Some(id.clone())),
        Some(_) => Err(wrong("jti", "a string of 1 to 128 bytes")),
    }
}

fn topics(claims: &Map<String, Value>) -> Result<Vec<TopicPattern>, TokenError> {
    let fault = || wrong("topics", "an array of at most 64 names of 1 to 128 bytes");
    match get(claims, "topics") {
        None => Ok(Vec::new()),
        Some(Value::Array(names)) if names.len() <= TOPICS_MAX => {
            let pattern = |name: &Value| name.as_str().and_then(|name| name.parse().ok()).ok_or_else(fault);
            names.iter().map(pattern).collect()
        }
        Some(_) => Err(fault()),
    }
}

fn send(claims: &Map<String, Value>) -> Result<MaySend, TokenError> {
    let fault = || wrong("send", "an array of at most 64 texts like user:NAME, user:* and topic:NAME");
    match get(claims, "send") {
        None => Ok(MaySend::Unspecified),
        Some(Value::Array(all)) if all.len() <= TOPICS_MAX => {
            let pattern = |one: &Value| one.as_str().and_then(|text| text.parse().ok()).ok_or_else(fault);
            all.iter().map(pattern).collect::<Result<_, _>>().map(MaySend::To)
        }
        Some(_) => Err(fault()),
    }
}

fn missing(claim: &str) -> TokenError {
    TokenError::Missing(claim.to_owned())
}

fn wrong(claim: &str, must_be: &'static str) -> TokenError {
    TokenError::Claim { claim: claim.to_owned(), must_be }
}
