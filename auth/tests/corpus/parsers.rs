//! The check of a fuzzer, and of the replay of its corpus, with one input: it is parsed, and the result is checked against
//! its rules. Each function panics where a rule is broken, and returns whether the input was accepted.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_auth::identity::{Identities, IdentityOptions};
use carillon_auth::origin::Origins;
use carillon_auth::seal::{Sealer, TOKEN_BYTES};
use carillon_auth::signature::{ApiAuthSecrets, Digest, SignatureError, Unsigned, WebhookSecrets};
use carillon_auth::token::{EXPIRY_MAX_S, Key, LEEWAY_S, Tokens};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use ring::hmac;

const NOW_MS: u64 = 1_795_247_100_123;
const WEBHOOK_SECRETS: &str =
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD,whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const API_AUTH_SECRETS: &str = "kqhoPLrrF2MkF9cOz166UJrnAYpZRl5HblaTaUw54Fg4guk3RkxRqtAmrUmJ5fiNOx6Q07vxiX1/iJA7sT3xig==,the second secret";
/// In place of a signature: the request is signed here, so that an input can also be a request with a valid signature.
const SIGN: &str = "sign";
const SEAL_KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
/// A token of a session under the second key.
const TOKEN: &str =
    "AQABAgMEBQYHCAkKCwwNDg8QERITFBUWF3OrIDPJOzLUXt-9cR42YLMBC1v5hpDR-9OkXa0CbSEfXuDGkmeqfLf8ckj2oJ2xPA";
const JWT_SECRET: &str = "a secret of at least thirty-two bytes";
const JWT_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\\nMCowBQYDK2VwAyEAF1/x0roNbYj6Kop6hlZFZQf9V76XJ/d78b1L0QACVtc=\\n-----END PUBLIC KEY-----";

/// A signed request verifies when the signature is ours and recent, and does not verify with another body.
pub(crate) fn webhook(data: &[u8]) -> bool {
    let Some((mut parts, body)) = request(data) else { return false };
    let ours: WebhookSecrets = WEBHOOK_SECRETS.parse().expect("two secrets");
    let text = |headers: &HeaderMap, name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    let is_ours = text(&parts.headers, "webhook-signature").as_deref() == Some(SIGN);
    let mut signed = false;
    if is_ours && let Some(id) = text(&parts.headers, "webhook-id") {
        match ours.sign(&id, NOW_MS, body) {
            Ok(headers) => {
                signed = true;
                put(&mut parts, headers);
            }
            Err(error) => assert_eq!(error, SignatureError::Malformed("webhook-id")),
        }
    }
    let verified = ours.verify(&parts.headers, body, NOW_MS);
    assert!(verified.is_ok() || !signed, "{verified:?}");
    let Ok(verified) = verified else { return false };
    assert!((1..=128).contains(&verified.id.len()));
    let timestamp = text(&parts.headers, "webhook-timestamp").and_then(|text| text.parse::<u64>().ok());
    assert!(timestamp.is_some_and(|timestamp| timestamp.abs_diff(NOW_MS / 1_000) <= 300));
    assert_eq!(ours.verify(&parts.headers, &[body, b"."].concat(), NOW_MS), Err(SignatureError::NoMatch));
    true
}

/// The same for the older signature.
pub(crate) fn api_auth(data: &[u8]) -> bool {
    let Some((mut parts, body)) = request(data) else { return false };
    let ours: ApiAuthSecrets = API_AUTH_SECRETS.parse().expect("two secrets");
    let text = |headers: &HeaderMap, name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    let is_ours = text(&parts.headers, "authorization").as_deref() == Some(SIGN);
    let mut signed = false;
    if is_ours {
        let content_type = text(&parts.headers, "content-type").unwrap_or_default();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let unsigned = Unsigned { method: &parts.method, path: &path, content_type: &content_type, body };
        if let Ok(headers) = ours.sign(Digest::Sha256, "app", unsigned, NOW_MS) {
            let given = parts.headers.get_all("content-type").iter().count();
            signed = given == usize::from(!content_type.is_empty()) && content_type.len() <= 256;
            put(&mut parts, headers);
        }
    }
    let verified = ours.verify(&parts, body, NOW_MS);
    assert!(verified.is_ok() || !signed, "{verified:?}");
    if verified.is_err() {
        return false;
    }
    let refused = ours.verify(&parts, &[body, b"."].concat(), NOW_MS);
    assert!(matches!(refused, Err(SignatureError::OtherBody | SignatureError::Missing(_))), "{refused:?}");
    true
}

/// A text opens a session only when it was sealed, to the last bit.
pub(crate) fn session_token(data: &[u8]) -> bool {
    let sealer = Sealer::new(&SEAL_KEYS[0], &SEAL_KEYS[1..]);
    let changed: Vec<_> = TOKEN.bytes().zip(data.iter().copied().chain(std::iter::repeat(0))).collect();
    let changed = changed.iter().map(|(byte, change)| byte ^ change).collect();
    if let Ok(changed) = String::from_utf8(changed) {
        assert_eq!(sealer.open(&changed, NOW_MS).is_ok(), changed == TOKEN, "{changed}");
    }
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(session) = sealer.open(text, NOW_MS) else { return false };
    assert!(text.len() == TOKEN_BYTES && NOW_MS < session.expires_at_ms);
    let again = sealer.seal(&session).expect("the system has random bytes");
    assert_eq!(sealer.open(&again, NOW_MS), Ok(session));
    true
}

/// A token is valid when it was signed with one of our keys, has not expired and does not last too long. An input is a
/// token, or a line with a header and then claims, which are signed here.
pub(crate) fn token(data: &[u8]) -> bool {
    static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
        let jwt_secret = vec![JWT_SECRET.into()];
        let jwt_public_key = Some(JWT_PUBLIC_KEY.to_owned());
        Tokens::new(&IdentityOptions { jwt_secret, jwt_public_key, ..IdentityOptions::default() })
            .expect("two keys")
    });
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let signed = text.split_once('\n').map(|(header, claims)| {
        let content = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, JWT_SECRET.as_bytes()), content.as_bytes());
        format!("{content}.{}", URL_SAFE_NO_PAD.encode(tag))
    });
    let token = signed.as_deref().unwrap_or(text);
    let Ok(identity) = TOKENS.verify_with_known_keys(token, NOW_MS) else { return false };
    assert!((1..=128).contains(&identity.user.len()));
    let latest_ms = NOW_MS + (EXPIRY_MAX_S + 2 * LEEWAY_S) * 1_000;
    assert!((NOW_MS..=latest_ms).contains(&identity.expires_at_ms), "{identity:?}");
    assert!(identity.issued_at_s <= NOW_MS / 1_000 + LEEWAY_S);
    let (content, signature) = token.rsplit_once('.').expect("three parts");
    let mut other = URL_SAFE_NO_PAD.decode(signature).expect("it was verified");
    other[0] ^= 1;
    let other = format!("{content}.{}", URL_SAFE_NO_PAD.encode(other));
    assert!(TOKENS.verify_with_known_keys(&other, NOW_MS).is_err());
    true
}

/// The token of a request is a part of it that is not empty.
pub(crate) fn token_of(data: &[u8]) -> bool {
    static IDENTITIES: LazyLock<Identities> = LazyLock::new(|| {
        let session_cookie = Some("jwt".to_owned());
        Identities::new(&IdentityOptions { session_cookie, ..IdentityOptions::default() }).expect("a cookie")
    });
    let Some((parts, _)) = request(data) else { return false };
    let Some(token) = IDENTITIES.token_of(&parts) else { return false };
    assert!(!token.is_empty() && token.trim() == token);
    assert!(data.windows(token.len()).any(|part| part == token.as_bytes()));
    true
}

/// A page may connect when it is listed, or is from the host of the request.
pub(crate) fn origin(data: &[u8]) -> bool {
    let Some((parts, _)) = request(data) else { return false };
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let origin = text("origin").to_ascii_lowercase();
    let listed = Origins::new(&["https://app.example.org".to_owned(), "http://[::1]:8080".to_owned()]);
    let is_listed = listed.expect("two origins").allow(&parts.headers).is_ok();
    if is_listed && !origin.is_empty() {
        let rest = origin.strip_prefix("https://app.example.org");
        let is_first = rest.is_some_and(|rest| rest.strip_prefix(':').unwrap_or("443").parse() == Ok(443));
        assert!(is_first || origin.starts_with("http://["), "{origin}");
    }
    let is_same = Origins::Same.allow(&parts.headers).is_ok();
    if is_same && !origin.is_empty() && !origin.contains('[') {
        let host = |text: &str| text.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let (_, authority) = origin.split_once("://").expect("it is an origin");
        assert_eq!(host(authority), host(text("host")));
    }
    assert!(Origins::Any.allow(&parts.headers).is_ok());
    is_listed || is_same
}

/// A published key is parsed, or left out.
pub(crate) fn jwk(data: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice(data) else { return false };
    let Some(key) = Key::jwk(&value) else { return false };
    let shown = format!("{key:?}");
    assert!(shown.starts_with("Key("), "{shown}");
    true
}

/// Parses an input as a request: `METHOD path`, headers, an empty line, and the body. (Input that a server would refuse
/// earlier is not a request.)
fn request(data: &[u8]) -> Option<(Parts, &[u8])> {
    let end = data.windows(2).position(|pair| pair == b"\n\n")?;
    let mut lines = data[..end].split(|byte| *byte == b'\n');
    let (method, path) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let (mut parts, ()) = Request::builder().method(method).uri(path).body(()).ok()?.into_parts();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        parts.headers.append(name, value);
    }
    Some((parts, &data[end + 2..]))
}

fn put(parts: &mut Parts, headers: [(&'static str, String); 3]) {
    for (name, value) in headers {
        parts.headers.insert(name, HeaderValue::try_from(value).expect("a header that we made"));
    }
}
