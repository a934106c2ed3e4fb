//! Verifies that an application sent a request, by two schemes: Standard Webhooks, and the older APIAuth of Ruby's api-auth.
//! This module reads no clock and stores nothing: callers pass the time, and store [`Verified::replay_key`] so that a
//! request counts once.

mod api_auth;
mod webhook;

use std::time::Duration;

use http::HeaderMap;
use ring::hmac;
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

pub use api_auth::{API_AUTH_TOLERANCE, ApiAuthSecrets, Digest, Unsigned, has_api_auth};
pub use webhook::{WEBHOOK_TOLERANCE, WebhookSecrets, has_webhook};

/// Maximum secrets in use at the same time. Rotation needs two.
pub const SECRETS_MAX: usize = 8;

/// A request with a recent signature by one of our secrets over this body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// `webhook` or `apiauth`.
    pub scheme: &'static str,
    /// The id of the request: its `webhook-id` (1 to 128 bytes), or with APIAuth its signature.
    pub id: String,
    /// When it was signed, in seconds since 1970.
    pub signed_s: u64,
    /// How long the same request could be verified again, even on a machine with a wrong clock.
    pub keep: Duration,
}

impl Verified {
    /// Returns the `webhook-id`, which all attempts of one webhook share.
    pub fn webhook_id(&self) -> Option<&str> {
        (self.scheme == "webhook").then_some(self.id.as_str())
    }

    /// Returns the key of the attempt in the cache of used signatures. Different texts never have the same key. A repeated
    /// attempt by the owner of the secret is signed again, and has another key.
    pub fn replay_key(&self) -> String {
        format!("{}:{}:{}", self.scheme, self.id, self.signed_s)
    }
}

/// Why a signed request is refused. The text may be shown to the sender: it reveals nothing about our secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// A header is missing.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// A header is repeated, and parsers may differ on which value counts.
    #[error("the header {0} is repeated")]
    Repeated(&'static str),
    /// A header has more than this many bytes.
    #[error("the header {0} has more than {1} bytes")]
    TooLong(&'static str, usize),
    /// A header is malformed.
    #[error("the header {0} is malformed")]
    Malformed(&'static str),
    /// `webhook-signature` holds more signatures than this.
    #[error("more than {0} signatures")]
    TooMany(usize),
    /// `Authorization` names an unsupported digest.
    #[error("use APIAuth, or APIAuth-HMAC- with SHA1, SHA256, SHA384 or SHA512")]
    UnknownDigest,
    /// The signature is older than this.
    #[error("signed more than {} s ago", .0.as_secs())]
    TooOld(Duration),
    /// The signature is further in the future than this.
    #[error("signed more than {} s in the future: one of the clocks is wrong", .0.as_secs())]
    TooNew(Duration),
    /// The content hash does not match the body.
    #[error("the content hash is not that of the body")]
    OtherBody,
    /// None of the signatures was made with one of our secrets over this request.
    #[error("the signature does not match: another secret, or the request was changed")]
    NoMatch,
}

impl SignatureError {
    /// Returns the reason as a word, for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Repeated(_) | Self::TooLong(..) | Self::Malformed(_) | Self::TooMany(_) => "malformed",
            Self::UnknownDigest => "unknown_digest",
            Self::TooOld(_) => "too_old",
            Self::TooNew(_) => "too_new",
            Self::OtherBody => "other_body",
            Self::NoMatch => "no_match",
        }
    }
}

/// Why secrets are unusable. It names them by number and never repeats one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SecretError(String);

/// Splits a list of secrets at its commas and parses each.
fn secrets<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, SecretError> {
    let texts: Vec<_> = text.split(',').map(str::trim).collect();
    if texts.len() > SECRETS_MAX {
        return Err(SecretError(format!("{} secrets, at most {SECRETS_MAX}", texts.len())));
    }
    let numbered = (1..).zip(texts);
    numbered
        .map(|(n, text)| read(text).map_err(|fault| SecretError(format!("secret {n}: {fault}"))))
        .collect()
}

/// Returns the only value of a header.
fn required<'a>(headers: &'a HeaderMap, name: &'static str, max: usize) -> Result<&'a str, SignatureError> {
    optional(headers, name, max)?.ok_or(SignatureError::Missing(name))
}

/// Returns the only value of a header, which may be absent.
fn optional<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
    max: usize,
) -> Result<Option<&'a str>, SignatureError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(SignatureError::Repeated(name));
    }
    if value.len() > max {
        return Err(SignatureError::TooLong(name, max));
    }
    value.to_str().map(Some).map_err(|_| SignatureError::Malformed(name))
}

/// Checks that `signed_s` is within `tolerance` of now. Both are seconds since 1970.
fn check_time(signed_s: u64, now_s: u64, tolerance: Duration) -> Result<(), SignatureError> {
    if signed_s.abs_diff(now_s) <= tolerance.as_secs() {
        Ok(())
    } else if signed_s < now_s {
        Err(SignatureError::TooOld(tolerance))
    } else {
        Err(SignatureError::TooNew(tolerance))
    }
}

/// Checks that one of the given signatures is one of ours. All pairs are compared in constant time, so that the time does
/// not show where they differ.
fn matches(given: &[Vec<u8>], ours: &[hmac::Tag]) -> Result<(), SignatureError> {
    let pairs =
        given.iter().flat_map(|given| ours.iter().map(move |tag| given.as_slice().ct_eq(tag.as_ref())));
    let found = pairs.fold(Choice::from(0), |found, same| found | same);
    if bool::from(found) { Ok(()) } else { Err(SignatureError::NoMatch) }
}
