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
const SIGNED: [(&str, &str); 4] =
    [(CONTENT_TYPE, "application/json"), (CONTENT_SHA256, SHA256), (DATE, TODAY), (AUTHORIZATION, SIGNATURE)];

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

/// Returns the signed request with one header replaced, or without it.
fn but(name: &str, value: Option<&str>) -> Parts {
    let kept = SIGNED.iter().filter(|(other, _)| *other != name).copied();
    post(&kept.chain(value.map(|value| (name, value))).collect::<Vec<_>>())
}

#[test]
fn signs_like_the_older_system() {
    let date = "Thu, 24 Sep 2020 16:01:14 GMT";
    let text = canonical(&Method::POST, "application/json", "HT7pfmQzVqiA/DMPqomcEA==", "/", date).unwrap();
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
fn any_change_after_signing_is_refused() {
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
fn names_the_wrong_header() {
    let long = "x".repeat(300);
    for (changed, expected) in [
        (but(AUTHORIZATION, None), SignatureError::Missing(AUTHORIZATION)),
        (but(AUTHORIZATION, Some("Bearer x:y")), SignatureError::Malformed(AUTHORIZATION)),
        (but(AUTHORIZATION, Some("APIAuth")), SignatureError::Malformed(AUTHORIZATION)),
        (but(AUTHORIZATION, Some("APIAuth app")), SignatureError::Malformed(AUTHORIZATION)),
        (but(AUTHORIZATION, Some("APIAuth :AAAA")), SignatureError::Malformed(AUTHORIZATION)),
        (but(AUTHORIZATION, Some("APIAuth app:?")), SignatureError::Malformed(AUTHORIZATION)),
        // The same bytes as SIGNATURE, written differently: it would not be found in a cache of signatures.
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
fn a_signed_request_is_recognized() {
    assert!(has_api_auth(&post(&SIGNED).headers));
    assert!(!has_api_auth(&but(AUTHORIZATION, Some("Bearer x")).headers));
}
