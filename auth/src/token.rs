//! Authenticates users by their JWTs. Verification is synchronous and takes the time as an argument; only [`Tokens::verify`]
//! waits, for an unknown key.

mod claims;
pub(crate) mod error;
pub(crate) mod key;
pub(crate) mod lifetime;
mod provider;
mod send;
mod topics;

use std::sync::Arc;

use anyhow::bail;
use carillon_service::{filled, words};
use ipnet::IpNet;
use jsonwebtoken::{AlgorithmFamily, Header};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

pub use error::{TOKEN_MAX_BYTES, TokenError};
pub use key::Key;
pub use key::header;
pub use lifetime::{EXPIRY_MAX_S, KEEP_ALL_S, REVOCATIONS_KEEP_MIN_S, TokenLifetime};
pub use send::{MaySend, SendPattern};
pub use topics::TopicPattern;

use crate::jwks::Jwks;
use crate::options::{IdentityOptions, USER_CLAIM};
use claims::Checks;

/// The tolerated difference of clocks, in seconds, after a token's `exp` and before its `nbf`.
pub const LEEWAY_S: u64 = 30;
/// Maximum keys in JWT_SECRET and JWT_PUBLIC_KEY together, since each is tried.
pub const STATIC_KEYS_MAX: usize = 8;

/// The identity of a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's name, 1 to 128 bytes.
    pub user: String,
    /// When the token expires, in milliseconds since 1970: its `exp` and the leeway.
    pub expires_at_ms: u64,
    /// Its `iat` in seconds since 1970; 0 for a token without one, which any revocation ends.
    pub issued_at_s: u64,
    /// Its `jti`, by which this token alone can be revoked; 1 to 128 bytes.
    pub token_id: Option<String>,
    /// The topics that it allows to read.
    pub topics: Vec<TopicPattern>,
    /// The recipients that it allows.
    pub send: MaySend,
}

impl Identity {
    /// Whether the token allows to read this topic.
    pub fn may_read(&self, topic: &str) -> bool {
        self.topics.iter().any(|pattern| pattern.matches(topic))
    }
}

/// Verifies tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Vec<Key>,
    jwks: Option<Jwks>,
    checks: Checks,
}

impl Tokens {
    /// Parses the keys. Nothing is fetched before [`Tokens::run`].
    ///
    /// # Errors
    /// Names every unusable option, with the reason.
    pub fn new(options: &IdentityOptions) -> anyhow::Result<Self> {
        provider::install();
        let (mut keys, mut faults) = (Vec::new(), Vec::new());
        for secret in options.jwt_secret.iter().filter_map(|secret| filled(secret.expose_secret())) {
            match Key::secret(secret) {
                Ok(key) => keys.push(key),
                Err(fault) => faults.push(format!("JWT_SECRET: {fault}")),
            }
        }
        if let Some(text) = options.jwt_public_key.as_deref().and_then(filled) {
            match public_keys(text) {
                Ok(public) => keys.extend(public),
                Err(fault) => faults.push(format!("JWT_PUBLIC_KEY: {fault}")),
            }
        }
        if keys.len() > STATIC_KEYS_MAX {
            faults.push(format!(
                "JWT_SECRET and JWT_PUBLIC_KEY: {} keys, at most {STATIC_KEYS_MAX}",
                keys.len()
            ));
        }
        let jwks = match options.jwks_url.as_deref().and_then(filled).map(Jwks::new).transpose() {
            Ok(jwks) => jwks,
            Err(fault) => {
                faults.push(format!("JWKS_URL: {fault}"));
                None
            }
        };
        if !faults.is_empty() {
            bail!("{}", faults.join("\n"));
        }
        let checks = Checks {
            audiences: words(&options.jwt_audience).map(str::to_owned).collect(),
            issuers: words(&options.jwt_issuer).map(str::to_owned).collect(),
            lifetime: options.token_lifetime_max,
            user_claim: filled(&options.jwt_user_claim).unwrap_or(USER_CLAIM).to_owned(),
        };
        Ok(Self(Arc::new(Inner { keys, jwks, checks })))
    }

    /// Like [`Tokens::new`], with other times of fetches.
    #[cfg(test)]
    pub(crate) fn with_jwks(options: &IdentityOptions, jwks: Jwks) -> Self {
        let mut inner = Arc::into_inner(Self::new(options).unwrap().0).unwrap();
        inner.jwks = Some(jwks);
        Self(Arc::new(inner))
    }

    /// Fetches the keys of JWKS_URL until `stop`; without a URL, only waits for it. Calls `fetch_failed` for each failed
    /// fetch, and retries.
    pub async fn run(self, stop: CancellationToken, fetch_failed: impl Fn()) -> anyhow::Result<()> {
        match &self.0.jwks {
            Some(jwks) => jwks.run(stop, &fetch_failed).await,
            None => stop.cancelled().await,
        }
        Ok(())
    }

    /// Returns how long revocations are kept, in seconds.
    pub fn revocations_keep_s(&self) -> u64 {
        self.0.checks.lifetime.revocations_keep_s()
    }

    /// Whether tokens can be verified at all.
    pub fn is_configured(&self) -> bool {
        !self.0.keys.is_empty() || self.0.jwks.is_some()
    }

    /// Returns the identity of a token at `now_ms`, with the keys that are known already.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn verify_with_known_keys(&self, token: &str, now_ms: u64) -> Result<Identity, TokenError> {
        let header = self.header(token)?;
        self.check(token, &header, &self.0.jwks.as_ref().map_or_else(Arc::default, Jwks::keys), now_ms)
    }

    /// Returns the identity of a token from this network at `now_ms`. If the keys come from JWKS_URL and none of them fits,
    /// waits for one fetch, at most [`crate::jwks::WAIT_MAX`]. `None` and the network of all addresses stand for clients
    /// without a known address.
    ///
    /// # Errors
    /// When it is invalid, or its key cannot be fetched.
    pub async fn verify(
        &self,
        token: &str,
        now_ms: u64,
        from: Option<IpNet>,
    ) -> Result<Identity, TokenError> {
        let header = self.header(token)?;
        let Some(jwks) = &self.0.jwks else { return self.check(token, &header, &[], now_ms) };
        let known = jwks.keys();
        match self.check(token, &header, &known, now_ms) {
            Err(error) if error.is_for_want_of_a_key() && may_be_new(&header, &known) => {}
            checked => return checked,
        }
        let fresh = jwks.fetched_after_now(header.kid.as_deref(), from).await;
        let fresh = fresh.ok_or(TokenError::KeysAway)?;
        match self.check(token, &header, &fresh.keys, now_ms) {
            Err(error) if error.is_for_want_of_a_key() => {
                Err(if fresh.is_away { TokenError::KeysAway } else { error })
            }
            checked => checked,
        }
    }

    fn header(&self, token: &str) -> Result<Header, TokenError> {
        if !self.is_configured() {
            return Err(TokenError::NoKey);
        }
        if token.len() > TOKEN_MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        let header = header(token).ok_or(TokenError::Malformed)?;
        // RFC 7515, section 4.1.11: a token with an unknown critical extension must be refused.
        if header.crit.is_some() { Err(TokenError::Critical) } else { Ok(header) }
    }

    fn check(
        &self,
        token: &str,
        header: &Header,
        fetched: &[Key],
        now_ms: u64,
    ) -> Result<Identity, TokenError> {
        let is_named =
            |key: &Key| key.id().is_none() || header.kid.is_none() || key.id() == header.kid.as_deref();
        let mut refusal = TokenError::Algorithm;
        for key in self.0.keys.iter().chain(fetched).filter(|key| key.is_for(header.alg)) {
            if !is_named(key) {
                if refusal == TokenError::Algorithm {
                    refusal = TokenError::UnknownKey;
                }
                continue;
            }
            match key.open(token) {
                Ok(claims) => return self.0.checks.identity(&claims, now_ms),
                Err(TokenError::Signature) => refusal = TokenError::Signature,
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }
}

/// Returns the keys of a PEM text, or of the file that the text names. In a text of one line, `\\n` stands for line ends.
fn public_keys(text: &str) -> Result<Vec<Key>, String> {
    if text.contains("-----BEGIN") {
        return Key::pem(&text.replace("\\n", "\n"));
    }
    let read = std::fs::read_to_string(text);
    Key::pem(&read.map_err(|error| format!("it is neither a PEM text nor a readable file: {text}: {error}"))?)
}

/// Whether the key of a token may have been published lately. A secret is never published, and a key with a known name is
/// not new.
fn may_be_new(header: &Header, known: &[Key]) -> bool {
    let is_known = header.kid.is_some() && known.iter().any(|key| key.id() == header.kid.as_deref());
    header.alg.family() != AlgorithmFamily::Hmac && !is_known
}

#[cfg(test)]
mod tests;
