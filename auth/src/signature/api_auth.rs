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

/// How far the `Date` of a request may be off, either way.
pub const API_AUTH_TOLERANCE: Duration = Duration::from_secs(15 * 60);

const AUTHORIZATION: &str = "authorization";
const CONTENT_TYPE: &str = "content-type";
const CONTENT_SHA256: &str = "x-authorization-content-sha256";
const CONTENT_MD5: &str = "content-md5";
const DATE: &str = "date";

/// Bytes of `Authorization`: prefix, access id and the longest signature.
const AUTHORIZATION_MAX_BYTES: usize = 256;
/// Bytes of `Content-Type`.
const CONTENT_TYPE_MAX_BYTES: usize = 256;
/// Bytes of a content hash or a date; the longest has 44.
const SMALL_MAX_BYTES: usize = 64;
/// The last millisecond that an HTTP date can say, at the end of the year 9999.
const DATE_MAX_MS: u64 = 253_402_300_799_999;
/// Bytes of a secret. The gem makes 88.
const SECRET_MIN_BYTES: usize = 16;
const SECRET_MAX_BYTES: usize = 256;

/// The hash under the HMAC. (The gem knows MD5 and SHA224 as well, which nobody has to choose.)
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
    /// Its path with the query, as it goes out.
    pub path: &'a str,
    /// Its `Content-Type`, as it goes out.
    pub content_type: &'a str,
    /// Its body.
    pub body: &'a [u8],
}

/// Signs and verifies as Ruby's api-auth 2 does. The first secret signs and all verify. Read from a
/// list with commas; a secret counts as the text that it is, also where it looks like base64.
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

/// Whether a request claims to be signed by APIAuth.
#[must_use]
pub fn has_api_auth(headers: &HeaderMap) -> bool {
    headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"APIAuth"))
}

impl ApiAuthSecrets {
    /// The headers to add to a request, beside its `Content-Type`, as of `now_ms` since 1970.
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

    /// Checks that a request with this body was signed with one of the secrets, within
    /// [`API_AUTH_TOLERANCE`] of `now_ms` since 1970. The access id counts for nothing: it is not signed.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
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
        // Only one text decodes to these bytes, so the text names the request.
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

/// The content hash that is signed, once it is found to be that of the body. A signature covers the
/// body through nothing else, so only an empty body may go without.
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

/// The text that is signed. No part but the path and the date may hold a comma: with one in the
/// content type, two different requests could have the same text.
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

/// Seconds since 1970 of an HTTP date.
fn seconds(date: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(date).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// The vectors here were computed with Python's hmac; the first is the seed system's own.
    const SECRET: &str =
        "kqhoPLrrF2MkF9cOz166UJrnAYpZRl5HblaTaUw54Fg4guk3RkxRqtAmrUmJ5fiNOx6Q07vxiX1/iJA7sT3xig==";
    const BODY: &[u8] = br#"{"body":"The export is ready","to":{"user":"42"}}"#;
    const PATH: &str = "/api/notifications?a=1&b=2,3";
    const NOW_S: u64 = 1_795_247_100;
    const NOW_MS: u64 = NOW_S * 1_000;
    const TODAY: &str = "Sat, 21 Nov 2026 07:45:00 GMT";
    const SHA256: &str = "pUZjm1dWz0zkUqNja7CVu03UNiiNbcVoCY1UM0z+DFw=";
    const SIGNATURE: &str = "APIAuth app:H4CFtb8H6KGzO1JM5QT1GqRpOvM=";
    const SIGNED: [(&str, &str); 4] = [
        (CONTENT_TYPE, "application/json"),
        (CONTENT_SHA256, SHA256),
        (DATE, TODAY),
        (AUTHORIZATION, SIGNATURE),
    ];

    fn ours() -> ApiAuthSecrets {
        SECRET.parse().unwrap()
    }

    fn parts(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn post(headers: &[(&str, &str)]) -> Parts {
        parts("POST", PATH, headers)
    }

    /// The signed request with one header replaced, or without it.
    fn but(name: &str, value: Option<&str>) -> Parts {
        let kept = SIGNED.iter().filter(|(other, _)| *other != name).copied();
        post(&kept.chain(value.map(|value| (name, value))).collect::<Vec<_>>())
    }

    #[test]
    fn signs_as_the_seed_system_does() {
        let date = "Thu, 24 Sep 2020 16:01:14 GMT";
        let text =
            canonical(&Method::POST, "application/json", "HT7pfmQzVqiA/DMPqomcEA==", "/", date).unwrap();
        assert_eq!(STANDARD.encode(tag(Digest::Sha1, SECRET, &text)), "u7W5NIxeim9LMkycsJMZxVAk5S0=");
    }

    #[test]
    fn each_digest_makes_the_known_signature_and_it_verifies() {
        let request =
            Unsigned { method: &Method::POST, path: PATH, content_type: "application/json", body: BODY };
        for (digest, expected) in [
            (Digest::Sha1, SIGNATURE),
            (Digest::Sha256, "APIAuth-HMAC-SHA256 app:w7Wrc5jzhMmOdo2dNnwGArQNvPvrgXz2qK40MLSfI70="),
            (
                Digest::Sha384,
                "APIAuth-HMAC-SHA384 app:teFmlfG6AWhQaSXVjoWwpsGB327p0FyhR79OT6GZ//YpXsfuQEUsoI9BVsQq6kT2",
            ),
            (
                Digest::Sha512,
                "APIAuth-HMAC-SHA512 app:HcDPRlq3zg9RFxONiC3DTh/8FF99pYK6hbRVio9ueSjQNd6Kh5aouK0mofezYedJdQc5ctnvTAIVHKaKKqVqjg==",
            ),
        ] {
            let signed = ours().sign(digest, "app", request, NOW_MS).unwrap();
            assert_eq!(
                signed,
                [
                    (AUTHORIZATION, expected.to_owned()),
                    (DATE, TODAY.to_owned()),
                    (CONTENT_SHA256, SHA256.to_owned())
                ]
            );
            let verified = ours().verify(&but(AUTHORIZATION, Some(expected)), BODY, NOW_MS).unwrap();
            let signature = expected.split_once(':').unwrap().1;
            assert_eq!(verified.replay_key(), format!("apiauth:{signature}:{}", NOW_MS / 1_000));
        }
        let spelled_out = SIGNATURE.replace("APIAuth", "APIAuth-HMAC-SHA1");
        assert!(ours().verify(&but(AUTHORIZATION, Some(&spelled_out)), BODY, NOW_MS).is_ok());
        let other_digest = SIGNATURE.replace("APIAuth", "APIAuth-HMAC-SHA256");
        let refused = ours().verify(&but(AUTHORIZATION, Some(&other_digest)), BODY, NOW_MS);
        assert_eq!(refused, Err(SignatureError::NoMatch));
    }

    #[test]
    fn the_older_content_hash_and_a_request_without_body_verify() {
        let headers = [
            (CONTENT_TYPE, "application/json"),
            (CONTENT_MD5, "5b7QJ3BxzgeqSz0uWNfd0w=="),
            (DATE, TODAY),
            (AUTHORIZATION, "APIAuth app:IOl0kdGz1jIHldlu1Ep/2Fg0HyM="),
        ];
        let older = parts("POST", "/", &headers);
        assert!(ours().verify(&older, BODY, NOW_MS).is_ok());
        assert_eq!(ours().verify(&older, b"{}", NOW_MS), Err(SignatureError::OtherBody));

        let headers = [(DATE, TODAY), (AUTHORIZATION, "APIAuth app:Y7Huo0pZsRcw8kSMr3LS1kqLQCg=")];
        let get = parts("GET", "/api/notifications?limit=1", &headers);
        assert!(ours().verify(&get, b"", NOW_MS).is_ok());
        let refused = ours().verify(&get, BODY, NOW_MS);
        assert_eq!(refused, Err(SignatureError::Missing(CONTENT_SHA256)), "its body would count unsigned");
    }

    #[test]
    fn whatever_is_changed_after_signing_is_refused() {
        assert!(ours().verify(&post(&SIGNED), BODY, NOW_MS).is_ok());
        for at in 0..BODY.len() {
            let mut body = BODY.to_vec();
            body[at] ^= 1;
            assert_eq!(ours().verify(&post(&SIGNED), &body, NOW_MS), Err(SignatureError::OtherBody));
        }
        let other_hash = sha256(b"{}");
        for changed in [
            parts("PUT", PATH, &SIGNED),
            parts("POST", "/api/notifications?a=1&b=2,4", &SIGNED),
            parts("POST", "/api/notifications", &SIGNED),
            but(CONTENT_TYPE, Some("application/xml")),
            but(CONTENT_TYPE, None),
            but(DATE, Some("Sat, 21 Nov 2026 07:45:01 GMT")),
            but(AUTHORIZATION, Some("APIAuth app:H4CFtb8H6KGzO1JM5QT1GqRpOvA=")),
            but(AUTHORIZATION, Some("APIAuth app:")),
            but(AUTHORIZATION, Some("APIAuth app:AAAA")),
        ] {
            assert_eq!(ours().verify(&changed, BODY, NOW_MS), Err(SignatureError::NoMatch), "{changed:?}");
        }
        let swapped = but(CONTENT_SHA256, Some(&other_hash));
        assert_eq!(ours().verify(&swapped, b"{}", NOW_MS), Err(SignatureError::NoMatch));
        let another: ApiAuthSecrets = "another secret of theirs".parse().unwrap();
        assert_eq!(another.verify(&post(&SIGNED), BODY, NOW_MS), Err(SignatureError::NoMatch));
    }

    #[test]
    fn a_signature_holds_for_fifteen_minutes_either_way() {
        let at = |now_s: u64| ours().verify(&post(&SIGNED), BODY, now_s * 1_000).map(drop);
        let tolerance = API_AUTH_TOLERANCE;
        for (now_s, expected) in [
            (NOW_S - 901, Err(SignatureError::TooNew(tolerance))),
            (NOW_S - 900, Ok(())),
            (NOW_S + 900, Ok(())),
            (NOW_S + 901, Err(SignatureError::TooOld(tolerance))),
        ] {
            assert_eq!(at(now_s), expected, "{now_s}");
        }
    }

    #[test]
    fn says_which_header_is_wrong() {
        let long = "x".repeat(300);
        for (changed, expected) in [
            (but(AUTHORIZATION, None), SignatureError::Missing(AUTHORIZATION)),
            (but(AUTHORIZATION, Some("Bearer x:y")), SignatureError::Malformed(AUTHORIZATION)),
            (but(AUTHORIZATION, Some("APIAuth")), SignatureError::Malformed(AUTHORIZATION)),
            (but(AUTHORIZATION, Some("APIAuth app")), SignatureError::Malformed(AUTHORIZATION)),
            (but(AUTHORIZATION, Some("APIAuth :AAAA")), SignatureError::Malformed(AUTHORIZATION)),
            (but(AUTHORIZATION, Some("APIAuth app:?")), SignatureError::Malformed(AUTHORIZATION)),
            // The same bytes as SIGNATURE, written otherwise: it would pass a cache of signatures.
            (
                but(AUTHORIZATION, Some("APIAuth app:H4CFtb8H6KGzO1JM5QT1GqRpOvN=")),
                SignatureError::Malformed(AUTHORIZATION),
            ),
            (
                but(AUTHORIZATION, Some("APIAuth app:H4CFtb8H6KGzO1JM5QT1GqRpOvM")),
                SignatureError::Malformed(AUTHORIZATION),
            ),
            (but(AUTHORIZATION, Some("APIAuth-HMAC-MD5 app:AAAA")), SignatureError::UnknownDigest),
            (but(AUTHORIZATION, Some("APIAuth-HMAC-SHA224 app:AAAA")), SignatureError::UnknownDigest),
            (but(AUTHORIZATION, Some(&long)), SignatureError::TooLong(AUTHORIZATION, 256)),
            (but(CONTENT_SHA256, None), SignatureError::Missing(CONTENT_SHA256)),
            (but(CONTENT_SHA256, Some("")), SignatureError::OtherBody),
            (but(CONTENT_TYPE, Some("a/b,c")), SignatureError::Malformed(CONTENT_TYPE)),
            (but(CONTENT_TYPE, Some(&long)), SignatureError::TooLong(CONTENT_TYPE, 256)),
            (but(DATE, None), SignatureError::Missing(DATE)),
            (but(DATE, Some("today")), SignatureError::Malformed(DATE)),
            (post(&[SIGNED.as_slice(), &[(DATE, TODAY)]].concat()), SignatureError::Repeated(DATE)),
        ] {
            assert_eq!(ours().verify(&changed, BODY, NOW_MS), Err(expected), "{changed:?}");
        }
    }

    #[test]
    fn all_secrets_verify_and_the_first_signs() {
        let both: ApiAuthSecrets = format!("another secret of theirs, {SECRET}").parse().unwrap();
        assert!(both.verify(&post(&SIGNED), BODY, NOW_MS).is_ok());
        let request = Unsigned { method: &Method::GET, path: "/", content_type: "", body: b"" };
        let signed = both.sign(Digest::Sha1, "app", request, NOW_MS).unwrap();
        let first: ApiAuthSecrets = "another secret of theirs".parse().unwrap();
        assert_eq!(first.sign(Digest::Sha1, "app", request, NOW_MS).unwrap(), signed);
        assert!(both.sign(Digest::Sha1, "a:b", request, NOW_MS).is_err());
        assert!(both.sign(Digest::Sha1, "app", Unsigned { content_type: "a,b", ..request }, NOW_MS).is_err());
        assert!(both.sign(Digest::Sha1, "app", request, u64::MAX).is_ok());
    }

    #[test]
    fn secrets_are_counted_and_never_shown() {
        assert_eq!(format!("{:?}", ours()), "ApiAuthSecrets(1 hidden)");
        for text in ["", "too short", &format!("{SECRET},"), &"x".repeat(257)] {
            let fault = text.parse::<ApiAuthSecrets>().unwrap_err().to_string();
            assert!(fault.starts_with("secret "), "{fault}");
            assert!(text.is_empty() || !fault.contains(text), "{fault}");
        }
    }

    #[test]
    fn a_request_says_whether_it_is_signed() {
        assert!(has_api_auth(&post(&SIGNED).headers));
        assert!(!has_api_auth(&but(AUTHORIZATION, Some("Bearer x")).headers));
    }
}
