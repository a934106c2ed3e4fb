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
fn any_change_after_signing_is_refused() {
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
fn names_the_wrong_header() {
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
