use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carillon_protocol::limits::NAME_MAX_BYTES;
use http::request::Parts;
use http::{HeaderMap, Method};
use md5::Md5;
use ring::{digest, hmac};

use super::{SecretError, SignatureError, Verified, check_time, matches, optional, required, secrets};

/// The tolerance of the `Date` of a request, in both directions.
pub const API_AUTH_TOLERANCE: Duration = Duration::from_secs(15 * 60);

const AUTHORIZATION: &str = "authorization";
const CONTENT_TYPE: &str = "content-type";
const CONTENT_SHA256: &str = "x-authorization-content-sha256";
const CONTENT_MD5: &str = "content-md5";
const DATE: &str = "date";

/// Maximum bytes of `Authorization`: prefix, access id and the longest signature.
const AUTHORIZATION_MAX_BYTES: usize = 256;
/// Maximum bytes of `Content-Type`.
const CONTENT_TYPE_MAX_BYTES: usize = 256;
/// Maximum bytes of a content hash or a date; the longest has 44.
const SMALL_MAX_BYTES: usize = 64;
/// The last millisecond that an HTTP date can express, at the end of the year 9999.
const DATE_MAX_MS: u64 = 253_402_300_799_999;
/// Bytes of a secret. The gem generates 88.
const SECRET_MIN_BYTES: usize = 16;
const SECRET_MAX_BYTES: usize = 256;

/// The hash of the HMAC. (The gem also supports MD5 and SHA224, which are not needed.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Digest {
    /// Written `APIAuth` alone.
    #[default]
    Sha1,
    /// `APIAuth-HMAC-SHA256`
    Sha256,
    /// `APIAuth-HMAC-SHA384`
    Sha384,
    /// `APIAuth-HMAC-SHA512`
    Sha512,
}

impl Digest {
    fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Sha1 => "APIAuth",
            Self::Sha256 => "APIAuth-HMAC-SHA256",
            Self::Sha384 => "APIAuth-HMAC-SHA384",
            Self::Sha512 => "APIAuth-HMAC-SHA512",
        }
    }

    fn named(prefix: &str) -> Result<Self, SignatureError> {
        match prefix {
            "APIAuth" | "APIAuth-HMAC-SHA" | "APIAuth-HMAC-SHA1" => Ok(Self::Sha1),
            "APIAuth-HMAC-SHA256" => Ok(Self::Sha256),
            "APIAuth-HMAC-SHA384" => Ok(Self::Sha384),
            "APIAuth-HMAC-SHA512" => Ok(Self::Sha512),
            _ if prefix.starts_with("APIAuth-") => Err(SignatureError::UnknownDigest),
            _ => Err(SignatureError::Malformed(AUTHORIZATION)),
        }
    }
}

/// A request that is about to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path with the query, as it is sent.
    pub path: &'a str,
    /// Its `Content-Type`, as it is sent.
    pub content_type: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

/// Signs and verifies like Ruby's api-auth 2. The first secret signs and all verify. They are parsed from a list with
/// commas; a secret is used as text, even if it looks like base64.
#[derive(Clone)]
pub struct ApiAuthSecrets(Vec<String>);

impl FromStr for ApiAuthSecrets {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        secrets(text, |secret| {
            if (SECRET_MIN_BYTES..=SECRET_MAX_BYTES).contains(&secret.len()) {
                return Ok(secret.to_owned());
            }
            let size = secret.len();
            Err(format!("{size} bytes; it has {SECRET_MIN_BYTES} to {SECRET_MAX_BYTES}"))
        })
        .map(Self)
    }
}

impl fmt::Debug for ApiAuthSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiAuthSecrets({} hidden)", self.0.len())
    }
}

/// Whether a request has a signature of APIAuth.
pub fn has_api_auth(headers: &HeaderMap) -> bool {
    headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"APIAuth"))
}

impl ApiAuthSecrets {
    /// Returns the headers to add to a request, beside its `Content-Type`, at `now_ms` since 1970.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`] for a content type with a comma, or an access id that is empty,
    /// holds a colon or a blank, or has more than 128 bytes.
    pub fn sign(
        &self,
        digest: Digest,
        access_id: &str,
        request: Unsigned<'_>,
        now_ms: u64,
    ) -> Result<[(&'static str, String); 3], SignatureError> {
        check_access_id(access_id)?;
        let hash = sha256(request.body);
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(now_ms.min(DATE_MAX_MS)));
        let Unsigned { method, path, content_type, .. } = request;
        let text = canonical(method, content_type, &hash, path, &date)?;
        let signature = self.0.first().map(|secret| STANDARD.encode(tag(digest, secret, &text)));
        let authorization = format!("{} {access_id}:{}", digest.prefix(), signature.unwrap_or_default());
        Ok([(AUTHORIZATION, authorization), (DATE, date), (CONTENT_SHA256, hash)])
    }

    /// Verifies that a request with this body was signed with one of the secrets, within [`API_AUTH_TOLERANCE`] of `now_ms`
    /// since 1970. The access id is ignored, since it is not signed.
    ///
    /// # Errors
    /// The first fault.
    pub fn verify(&self, parts: &Parts, body: &[u8], now_ms: u64) -> Result<Verified, SignatureError> {
        let headers = &parts.headers;
        let (digest, signature) = authorization(required(headers, AUTHORIZATION, AUTHORIZATION_MAX_BYTES)?)?;
        let given = STANDARD.decode(signature).map_err(|_| SignatureError::Malformed(AUTHORIZATION))?;
        let date = required(headers, DATE, SMALL_MAX_BYTES)?;
        let signed_s = seconds(date).ok_or(SignatureError::Malformed(DATE))?;
        check_time(signed_s, now_ms / 1_000, API_AUTH_TOLERANCE)?;
        let hash = content_hash(headers, body)?;
        let content_type = optional(headers, CONTENT_TYPE, CONTENT_TYPE_MAX_BYTES)?.unwrap_or_default();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let text = canonical(&parts.method, content_type, hash, path, date)?;
        let ours: Vec<_> = self.0.iter().map(|secret| tag(digest, secret, &text)).collect();
        matches(&[given], &ours)?;
        // Only one text decodes to these bytes, so the text identifies the request.
        Ok(Verified { scheme: "apiauth", id: signature.to_owned(), signed_s, keep: API_AUTH_TOLERANCE * 3 })
    }
}

/// `APIAuth ID:SIGNATURE`
fn authorization(header: &str) -> Result<(Digest, &str), SignatureError> {
    let malformed = SignatureError::Malformed(AUTHORIZATION);
    let (prefix, credentials) = header.split_once(' ').ok_or(malformed)?;
    let digest = Digest::named(prefix)?;
    let (access_id, signature) = credentials.split_once(':').ok_or(malformed)?;
    check_access_id(access_id)?;
    Ok((digest, signature))
}

fn check_access_id(id: &str) -> Result<(), SignatureError> {
    let fits = (1..=NAME_MAX_BYTES).contains(&id.len());
    let named = id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if fits && named { Ok(()) } else { Err(SignatureError::Malformed(AUTHORIZATION)) }
}

/// Returns the signed content hash after comparing it with the body. Nothing else of a signature covers the body, so only an
/// empty body may lack it.
fn content_hash<'a>(headers: &'a HeaderMap, body: &[u8]) -> Result<&'a str, SignatureError> {
    let (given, hash) = if let Some(given) = optional(headers, CONTENT_SHA256, SMALL_MAX_BYTES)? {
        (given, sha256(body))
    } else if let Some(given) = optional(headers, CONTENT_MD5, SMALL_MAX_BYTES)? {
        (given, md5(body))
    } else if body.is_empty() {
        return Ok("");
    } else {
        return Err(SignatureError::Missing(CONTENT_SHA256));
    };
    if given == hash { Ok(given) } else { Err(SignatureError::OtherBody) }
}

fn sha256(body: &[u8]) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, body))
}

fn md5(body: &[u8]) -> String {
    use md5::Digest as _;
    STANDARD.encode(Md5::digest(body))
}

/// Returns the signed text. Only the path and the date may contain a comma: with one in the content type, two different
/// requests could have the same text.
fn canonical(
    method: &Method,
    content_type: &str,
    hash: &str,
    path: &str,
    date: &str,
) -> Result<String, SignatureError> {
    if content_type.contains(',') {
        return Err(SignatureError::Malformed(CONTENT_TYPE));
    }
    Ok(format!("{method},{content_type},{hash},{path},{date}"))
}

fn tag(digest: Digest, secret: &str, text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(digest.algorithm(), secret.as_bytes()), text.as_bytes())
}

/// Parses an HTTP date to seconds since 1970.
fn seconds(date: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(date).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests;
