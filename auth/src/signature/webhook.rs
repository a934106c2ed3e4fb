use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use carillon_protocol::limits::NAME_MAX_BYTES;
use http::HeaderMap;
use ring::hmac;

use super::{SecretError, SignatureError, Verified, check_time, matches, required, secrets};

/// The tolerance of the timestamp of a request, in both directions.
pub const WEBHOOK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Maximum digits of a timestamp. Twelve last until the year 33658.
const TIMESTAMP_MAX_BYTES: usize = 12;
/// Maximum signatures in one header, including those of unknown schemes.
const SIGNATURES_MAX: usize = 16;
/// Maximum bytes of `webhook-signature`: that many signatures of the longest known kind fit.
const SIGNATURE_MAX_BYTES: usize = 2_048;
/// Bytes of a decoded secret, by the specification.
const SECRET_MIN_BYTES: usize = 24;
const SECRET_MAX_BYTES: usize = 64;

/// Secrets are often copied without their padding.
const SECRET_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Signs and verifies by [Standard Webhooks](https://www.standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`. All
/// secrets sign and all verify, so that both ends may rotate theirs in any order: a receiver needs only one known secret.
/// They are parsed from `whsec_…,whsec_…`.
#[derive(Clone)]
pub struct WebhookSecrets(Vec<hmac::Key>);

impl FromStr for WebhookSecrets {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        secrets(text, |secret| {
            let encoded = secret.strip_prefix("whsec_").ok_or("it does not begin with whsec_")?;
            let bytes = SECRET_BASE64.decode(encoded).map_err(|_| "the text after whsec_ is not base64")?;
            if !(SECRET_MIN_BYTES..=SECRET_MAX_BYTES).contains(&bytes.len()) {
                let size = bytes.len();
                return Err(format!("{size} bytes; it has {SECRET_MIN_BYTES} to {SECRET_MAX_BYTES}"));
            }
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        })
        .map(Self)
    }
}

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecrets({} hidden)", self.0.len())
    }
}

/// Whether a request has a signature of Standard Webhooks.
pub fn has_webhook(headers: &HeaderMap) -> bool {
    [ID, TIMESTAMP, SIGNATURE].iter().any(|name| headers.contains_key(*name))
}

impl WebhookSecrets {
    /// Returns the headers of a request with this body, at `now_ms` since 1970. A repeated attempt keeps its id and is
    /// signed again.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`] for an id that is not 1 to 128 visible ASCII characters without a full stop.
    pub fn sign(
        &self,
        id: &str,
        now_ms: u64,
        body: &[u8],
    ) -> Result<[(&'static str, String); 3], SignatureError> {
        check_id(id)?;
        let timestamp = (now_ms / 1_000).to_string();
        let tags = self.tags(id, &timestamp, body);
        let signatures: Vec<_> = tags.iter().map(|tag| format!("v1,{}", STANDARD.encode(tag))).collect();
        Ok([(ID, id.to_owned()), (TIMESTAMP, timestamp), (SIGNATURE, signatures.join(" "))])
    }

    /// Verifies that a request with this body was signed with one of the secrets, within [`WEBHOOK_TOLERANCE`] of `now_ms`
    /// since 1970.
    ///
    /// # Errors
    /// The first fault.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now_ms: u64) -> Result<Verified, SignatureError> {
        let id = required(headers, ID, NAME_MAX_BYTES)?;
        check_id(id)?;
        let timestamp = required(headers, TIMESTAMP, TIMESTAMP_MAX_BYTES)?;
        let signed_s = seconds(timestamp).ok_or(SignatureError::Malformed(TIMESTAMP))?;
        check_time(signed_s, now_ms / 1_000, WEBHOOK_TOLERANCE)?;
        let given = signatures(required(headers, SIGNATURE, SIGNATURE_MAX_BYTES)?)?;
        matches(&given, &self.tags(id, timestamp, body))?;
        // The window in which it verifies is twice the tolerance; the rest is for clocks that differ.
        Ok(Verified { scheme: "webhook", id: id.to_owned(), signed_s, keep: WEBHOOK_TOLERANCE * 3 })
    }

    /// Returns the signature of a request with each secret.
    fn tags(&self, id: &str, timestamp: &str, body: &[u8]) -> Vec<hmac::Tag> {
        let sign = |key| {
            let mut content = hmac::Context::with_key(key);
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                content.update(part);
            }
            content.sign()
        };
        self.0.iter().map(sign).collect()
    }
}

/// A full stop in the id could be confused with the one after it: `a` at `1` with the body `2.x` and `a.1` at `2` with the
/// body `x` are the same signed bytes.
fn check_id(id: &str) -> Result<(), SignatureError> {
    let fits = (1..=NAME_MAX_BYTES).contains(&id.len());
    let named = id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
    if fits && named { Ok(()) } else { Err(SignatureError::Malformed(ID)) }
}

fn seconds(text: &str) -> Option<u64> {
    // `parse` alone would accept "+1".
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Returns the `v1` signatures of a header. Others are for other receivers, and an unreadable one matches nothing.
fn signatures(header: &str) -> Result<Vec<Vec<u8>>, SignatureError> {
    if header.split(' ').count() > SIGNATURES_MAX {
        return Err(SignatureError::TooMany(SIGNATURES_MAX));
    }
    let encoded = header.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
    let given: Vec<_> = encoded.filter_map(|encoded| STANDARD.decode(encoded).ok()).collect();
    if given.is_empty() { Err(SignatureError::Malformed(SIGNATURE)) } else { Ok(given) }
}

#[cfg(test)]
mod tests;
