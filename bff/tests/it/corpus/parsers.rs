//! What a fuzzer, and the replay of its corpus, do with one input: they read it, and hold what was read
//! to its rules. Each function panics where a rule is broken, and says whether the input was accepted.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use carillon_bff::seal::{Sealer, TOKEN_BYTES};
use carillon_bff::signature::{ApiAuthSecrets, Digest, SignatureError, Unsigned, WebhookSecrets};

const NOW_MS: u64 = 1_795_247_100_123;
const WEBHOOK_SECRETS: &str =
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD,whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const API_AUTH_SECRETS: &str = "kqhoPLrrF2MkF9cOz166UJrnAYpZRl5HblaTaUw54Fg4guk3RkxRqtAmrUmJ5fiNOx6Q07vxiX1/iJA7sT3xig==,the second secret";
/// In place of a signature: sign it here, so that an input can also be a request that is signed well.
const SIGN: &str = "sign";
const SEAL_KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
/// A token of a session under the second key.
const TOKEN: &str =
    "AQABAgMEBQYHCAkKCwwNDg8QERITFBUWF3OrIDPJOzLUXt-9cR42YLMBC1v5hpDR-9OkXa0CbSEfXuDGkmeqfLf8ckj2oJ2xPA";

/// A request with a signature verifies when that is ours and lately made, and not with another body.
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

/// Reads an input as a request: `METHOD path`, headers, an empty line, and the body. (What a server
/// would refuse before us is none.)
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
