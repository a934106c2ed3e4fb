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

/// How far the sender's clock and the way here may be off, either way.
pub const WEBHOOK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";

/// Digits of a timestamp. Twelve last until the year 33658.
const TIMESTAMP_MAX_BYTES: usize = 12;
/// Signatures in one header, those of schemes that we don't know included.
const SIGNATURES_MAX: usize = 16;
/// Bytes of `webhook-signature`: so many signatures of the longest known kind fit.
const SIGNATURE_MAX_BYTES: usize = 2_048;
/// Bytes of a decoded secret, by the specification.
const SECRET_MIN_BYTES: usize = 24;
const SECRET_MAX_BYTES: usize = 64;

/// Secrets get copied without their padding.
const SECRET_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Signs and verifies by [Standard Webhooks](https://www.standardwebhooks.com): HMAC-SHA256 over
/// `id.timestamp.body`. All secrets sign and all verify, so that the two ends may change theirs in
/// either order: a receiver needs only one that it knows. Read from `whsec_…,whsec_…`.
#[derive(Clone)]
pub struct WebhookSecrets(Vec<hmac::Key>);

impl FromStr for WebhookSecrets {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        secrets(text, |secret| {
            let encoded = secret.strip_prefix("whsec_").ok_or("it does not begin with whsec_")?;
            let bytes = SECRET_BASE64.decode(encoded).map_err(|_| "what follows whsec_ is no base64")?;
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

/// Whether a request claims to be signed by Standard Webhooks.
#[must_use]
pub fn has_webhook(headers: &HeaderMap) -> bool {
    [ID, TIMESTAMP, SIGNATURE].iter().any(|name| headers.contains_key(*name))
}

impl WebhookSecrets {
    /// The headers of a request with this body, as of `now_ms` since 1970. An attempt that is repeated
    /// keeps its id and is signed anew.
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

    /// Checks that a request with this body was signed with one of the secrets, within
    /// [`WEBHOOK_TOLERANCE`] of `now_ms` since 1970.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
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

    /// What each secret makes of a request.
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

/// A full stop in the id could be taken for the one that ends it: `a` at `1` with the body `2.x` and
/// `a.1` at `2` with the body `x` are the same signed bytes.
fn check_id(id: &str) -> Result<(), SignatureError> {
    let fits = (1..=NAME_MAX_BYTES).contains(&id.len());
    let named = id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.');
    if fits && named { Ok(()) } else { Err(SignatureError::Malformed(ID)) }
}

fn seconds(text: &str) -> Option<u64> {
    // `parse` alone would take "+1".
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The `v1` signatures of a header. Others are for other receivers, and one that cannot be read
/// matches nothing.
fn signatures(header: &str) -> Result<Vec<Vec<u8>>, SignatureError> {
    if header.split(' ').count() > SIGNATURES_MAX {
        return Err(SignatureError::TooMany(SIGNATURES_MAX));
    }
    let encoded = header.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
    let given: Vec<_> = encoded.filter_map(|encoded| STANDARD.decode(encoded).ok()).collect();
    if given.is_empty() { Err(SignatureError::Malformed(SIGNATURE)) } else { Ok(given) }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// The vectors here were computed with Python's hmac; the first is the specification's own.
    const FIRST: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const SECOND: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const LONGEST: &str =
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";
    const MSG: &str = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";
    const BODY: &[u8] = br#"{"body":"The export is ready","to":{"user":"42"}}"#;
    const NOW_S: u64 = 1_795_247_100;
    const NOW_MS: u64 = NOW_S * 1_000;
    const BY_FIRST: &str = "v1,dAYislo9vrmbY1aFVR7wzT58j+7sBbEUNkrheRk8Vhs=";
    const BY_SECOND: &str = "v1,MYDk2Jn0BKX2kwJEqDcIUH6YvHtbye7L6+jxSoQL4KY=";
    const BY_LONGEST: &str = "v1,bh6zzMhgrIijY1Ia/jDZ2a5U6u9i22qLIAofzQNXdho=";
    /// A signature with a public key, as the specification writes one.
    const ASYMMETRIC: &str =
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    fn keys(text: &str) -> WebhookSecrets {
        text.parse().unwrap()
    }

    fn headers(id: &str, timestamp: &str, signature: &str) -> HeaderMap {
        [(ID, id), (TIMESTAMP, timestamp), (SIGNATURE, signature)]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .into_iter()
            .collect()
    }

    fn verify(secrets: &str, signature: &str) -> Result<Verified, SignatureError> {
        keys(secrets).verify(&headers(MSG, "1795247100", signature), BODY, NOW_MS)
    }

    #[test]
    fn signs_the_known_vectors() {
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signed = keys(FIRST).sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553_999, body).unwrap();
        let expected = [
            (ID, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".to_owned()),
            (TIMESTAMP, "1649367553".to_owned()),
            (SIGNATURE, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=".to_owned()),
        ];
        assert_eq!(signed, expected);
        for (secret, id, now_s, body, expected) in [
            (FIRST, MSG, NOW_S, BODY, BY_FIRST),
            (SECOND, MSG, NOW_S, BODY, BY_SECOND),
            (LONGEST, MSG, NOW_S, BODY, BY_LONGEST),
            (SECOND, "a", 0, b"\xff\x00", "v1,M+hNdCndqkMm+319uhh1Nen5I457yjFLC4xuilO5Z0M="),
            (SECOND, "a", 0, b"", "v1,nyI8u9KtZmFaY8k/GcBnoJXYP7WgQ2vPynpd+JPwAqQ="),
        ] {
            let [.., (_, signature)] = keys(secret).sign(id, now_s * 1_000, body).unwrap();
            assert_eq!(signature, expected);
        }
    }

    #[test]
    fn every_secret_signs_and_one_that_both_ends_know_is_enough() {
        let both = format!("{SECOND}, {FIRST}");
        let [.., (_, signatures)] = keys(&both).sign(MSG, NOW_MS, BODY).unwrap();
        assert_eq!(signatures, format!("{BY_SECOND} {BY_FIRST}"));
        for secrets in [FIRST, SECOND, &both, &format!("{LONGEST},{FIRST}")] {
            let verified = verify(secrets, &signatures).unwrap();
            let expected = (format!("webhook:{MSG}:{NOW_S}"), 900);
            assert_eq!((verified.replay_key(), verified.keep.as_secs()), expected);
        }
        assert_eq!(verify(LONGEST, &signatures), Err(SignatureError::NoMatch));
    }

    #[test]
    fn one_good_signature_among_others_is_enough() {
        for signature in [
            BY_FIRST.to_owned(),
            format!("{ASYMMETRIC} {BY_LONGEST} {BY_FIRST}"),
            format!("v1,? {BY_FIRST} v1,AAAA"),
            format!("  {BY_FIRST}  "),
        ] {
            assert!(verify(FIRST, &signature).is_ok(), "{signature}");
        }
        for signature in [BY_SECOND, "v1,AAAA", "v1,", &format!("{ASYMMETRIC} {BY_LONGEST}")] {
            assert_eq!(verify(FIRST, signature), Err(SignatureError::NoMatch), "{signature}");
        }
        let without_version = BY_FIRST.strip_prefix("v1,").unwrap();
        let other_version = BY_FIRST.replace("v1", "v1a");
        for signature in ["", "v1", "v1,?", without_version, &other_version] {
            assert_eq!(verify(FIRST, signature), Err(SignatureError::Malformed(SIGNATURE)), "{signature}");
        }
    }

    #[test]
    fn whatever_is_changed_after_signing_is_refused() {
        let ours = keys(FIRST);
        let signed = headers(MSG, "1795247100", BY_FIRST);
        assert!(ours.verify(&signed, BODY, NOW_MS).is_ok());
        for at in 0..BODY.len() {
            let mut body = BODY.to_vec();
            body[at] ^= 1;
            assert_eq!(ours.verify(&signed, &body, NOW_MS), Err(SignatureError::NoMatch));
        }
        assert_eq!(ours.verify(&signed, &BODY[1..], NOW_MS), Err(SignatureError::NoMatch));
        for changed in [
            headers("msg_2KWPBgLlAfxdpx2AI54pPJ85f4V", "1795247100", BY_FIRST),
            headers(MSG, "1795247101", BY_FIRST),
            headers(MSG, "01795247100", BY_FIRST),
        ] {
            assert_eq!(ours.verify(&changed, BODY, NOW_MS), Err(SignatureError::NoMatch));
        }
    }

    #[test]
    fn a_signature_holds_for_five_minutes_either_way() {
        let ours = keys(FIRST);
        let signed = headers(MSG, "1795247100", BY_FIRST);
        for (now_s, expected) in [
            (NOW_S - 301, Err(SignatureError::TooNew(WEBHOOK_TOLERANCE))),
            (NOW_S - 300, Ok(())),
            (NOW_S + 300, Ok(())),
            (NOW_S + 301, Err(SignatureError::TooOld(WEBHOOK_TOLERANCE))),
        ] {
            assert_eq!(ours.verify(&signed, BODY, now_s * 1_000).map(drop), expected, "{now_s}");
        }
    }

    #[test]
    fn an_id_cannot_end_in_the_body() {
        // "a" at 1795247100 with this body, and "a.1795247100" at 1795247101 with its rest, are the same bytes.
        let ours = keys(FIRST);
        let [.., (_, signature)] = ours.sign("a", NOW_MS, b"1795247101.{}").unwrap();
        let moved = headers("a.1795247100", "1795247101", &signature);
        assert_eq!(ours.verify(&moved, b"{}", NOW_MS), Err(SignatureError::Malformed(ID)));
        for id in ["", "a.b", "a b", "é", "a\n", &"x".repeat(129)] {
            assert_eq!(ours.sign(id, NOW_MS, b""), Err(SignatureError::Malformed(ID)), "{id}");
        }
    }

    #[test]
    fn says_which_header_is_wrong() {
        let long = "x".repeat(129);
        let many = [BY_SECOND; 17].join(" ");
        let huge = "v".repeat(2_049);
        for (id, timestamp, signature, expected) in [
            ("", "1795247100", BY_FIRST, SignatureError::Malformed(ID)),
            (long.as_str(), "1795247100", BY_FIRST, SignatureError::TooLong(ID, 128)),
            (MSG, "", BY_FIRST, SignatureError::Malformed(TIMESTAMP)),
            (MSG, "+1795247100", BY_FIRST, SignatureError::Malformed(TIMESTAMP)),
            (MSG, "1795247100.0", BY_FIRST, SignatureError::Malformed(TIMESTAMP)),
            (MSG, "1795247100000", BY_FIRST, SignatureError::TooLong(TIMESTAMP, 12)),
            (MSG, "1795247100", &many, SignatureError::TooMany(16)),
            (MSG, "1795247100", &huge, SignatureError::TooLong(SIGNATURE, 2_048)),
        ] {
            let refused = keys(FIRST).verify(&headers(id, timestamp, signature), BODY, NOW_MS);
            assert_eq!(refused, Err(expected));
        }
        let enough = [&[BY_SECOND; 15][..], &[BY_FIRST]].concat().join(" ");
        assert!(verify(FIRST, &enough).is_ok());
        for name in [ID, TIMESTAMP, SIGNATURE] {
            let mut without = headers(MSG, "1795247100", BY_FIRST);
            assert!(has_webhook(&without));
            let value = without.remove(name).unwrap();
            assert_eq!(keys(FIRST).verify(&without, BODY, NOW_MS), Err(SignatureError::Missing(name)));
            without.append(name, value.clone());
            without.append(name, value);
            assert_eq!(keys(FIRST).verify(&without, BODY, NOW_MS), Err(SignatureError::Repeated(name)));
        }
        assert!(!has_webhook(&HeaderMap::new()));
    }

    #[test]
    fn secrets_are_checked_and_never_shown() {
        assert_eq!(format!("{:?}", keys(&format!("{FIRST},{SECOND}"))), "WebhookSecrets(2 hidden)");
        let unpadded = keys(SECOND.trim_end_matches('='));
        assert_eq!(unpadded.sign(MSG, NOW_MS, BODY), keys(SECOND).sign(MSG, NOW_MS, BODY));
        let of = |size: usize| format!("whsec_{}", STANDARD.encode(vec![7; size]));
        assert!(of(24).parse::<WebhookSecrets>().is_ok() && of(64).parse::<WebhookSecrets>().is_ok());
        for text in
            ["", "plain", "whsec_", "whsec_?", &of(23), &of(65), &format!("{FIRST},"), &[FIRST; 9].join(",")]
        {
            let fault = text.parse::<WebhookSecrets>().unwrap_err().to_string();
            assert!(text.is_empty() || !fault.contains(text), "{fault}");
        }
        let fault = format!("{FIRST},plain").parse::<WebhookSecrets>().unwrap_err().to_string();
        assert_eq!(fault, "secret 2: it does not begin with whsec_");
    }
}
