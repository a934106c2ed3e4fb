use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use carillon_harness::Signer;
use serde_json::{Value, json};

use super::*;

pub(super) const NOW_S: u64 = 1_800_000_000;
pub(super) const SECRET: &str = "a secret of at least thirty-two bytes";

fn options() -> IdentityOptions {
    IdentityOptions::default()
}

pub(super) fn secret() -> IdentityOptions {
    IdentityOptions { jwt_secret: vec![SECRET.into()], ..options() }
}

fn pem(text: &str) -> IdentityOptions {
    IdentityOptions { jwt_public_key: Some(text.to_owned()), ..options() }
}

fn public(signer: &Signer) -> IdentityOptions {
    pem(signer.public_pem())
}

pub(super) fn verify(options: &IdentityOptions, token: &str) -> Result<Identity, TokenError> {
    Tokens::new(options).unwrap().verify_with_known_keys(token, NOW_S * 1_000)
}

/// Returns the result for a token with these claims.
fn claim(options: &IdentityOptions, changes: &Value) -> Result<Identity, TokenError> {
    verify(options, &Signer::secret(SECRET).token(&claims(changes)))
}

/// Returns claims of a token that is valid for an hour, with changes; null counts as absent.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({ "user_id": "ann", "exp": NOW_S + 3_600 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn header(algorithm: &str) -> Value {
    json!({ "alg": algorithm })
}

#[test]
fn a_key_is_for_the_algorithms_of_its_kind_and_no_others() {
    let all = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
        "EdDSA",
    ];
    for (signer, good) in [
        (Signer::secret(SECRET), &all[..3]),
        (Signer::rsa(), &all[3..9]),
        (Signer::p256(), &all[9..10]),
        (Signer::p384(), &all[10..11]),
        (Signer::ed25519(), &all[11..]),
    ] {
        let options = if signer.public_pem().is_empty() { secret() } else { public(&signer) };
        for algorithm in all {
            let checked = verify(&options, &signer.sign(&header(algorithm), &claims(&json!({}))));
            if good.contains(&algorithm) {
                assert_eq!(checked.map(|one| one.user), Ok("ann".to_owned()), "{algorithm}");
            } else {
                assert_eq!(checked, Err(TokenError::Algorithm), "{algorithm} with {}", signer.algorithm());
            }
        }
    }
}

/// RFC 7515, appendices A.2 and A.3: the same claims, signed by another program.
#[test]
fn the_samples_of_the_standard_are_valid() {
    provider::install();
    let claims =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let modulus = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4Q\
        lL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQ\
        OS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2eth\
        FkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let rsa = json!({ "kty": "RSA", "e": "AQAB", "n": modulus });
    let rsa_signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5j\
        ujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB\
        _eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLI\
        hWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let ec = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
    let ec_signature =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    for (jwk, header, signature) in
        [(&rsa, "eyJhbGciOiJSUzI1NiJ9", rsa_signature), (&ec, "eyJhbGciOiJFUzI1NiJ9", ec_signature)]
    {
        let key = Key::jwk(jwk).unwrap();
        let opened = key.open(&format!("{header}.{claims}.{signature}")).unwrap();
        assert_eq!((opened["iss"].as_str(), opened["exp"].as_u64()), (Some("joe"), Some(1_300_819_380)));
        let other = signature.replacen('D', "E", 1);
        assert_eq!(key.open(&format!("{header}.{claims}.{other}")), Err(TokenError::Signature));
    }
}

#[test]
fn a_token_of_another_key_is_refused() {
    let (rsa, other) = (Signer::rsa(), Signer::rsa());
    let good = claims(&json!({}));
    let token = rsa.token(&good);
    let parts: Vec<_> = token.split('.').collect();
    let bob = other.token(&claims(&json!({ "user_id": "bob" })));
    let bob = bob.split('.').nth(1).unwrap();
    let unsigned = Signer::secret(SECRET).sign(&header("none"), &good);
    let unsigned = unsigned.rsplit_once('.').unwrap().0;
    // The classic attack: a public key used as a secret.
    let confused = |pem: &str| Signer::secret(pem).sign(&header("HS256"), &good);
    for (token, expected) in [
        (other.token(&good), TokenError::Signature),
        (format!("{}.{bob}.{}", parts[0], parts[2]), TokenError::Signature),
        (format!("{}.{}.", parts[0], parts[1]), TokenError::Signature),
        (format!("{}.{}.AAAA", parts[0], parts[1]), TokenError::Signature),
        (confused(rsa.public_pem()), TokenError::Algorithm),
        (confused(rsa.public_pem().trim()), TokenError::Algorithm),
        (rsa.sign(&header("ES256"), &good), TokenError::Algorithm),
        (format!("{unsigned}."), TokenError::Malformed),
        (unsigned.to_owned(), TokenError::Malformed),
        (rsa.sign(&header("None"), &good), TokenError::Malformed),
        (rsa.sign(&header("rs256"), &good), TokenError::Malformed),
        (rsa.sign(&json!({}), &good), TokenError::Malformed),
        (rsa.sign(&json!({ "alg": ["RS256"] }), &good), TokenError::Malformed),
        (rsa.sign(&json!({ "alg": "RS256", "crit": ["b64"], "b64": false }), &good), TokenError::Critical),
        (rsa.sign(&json!({ "alg": "RS256", "crit": [] }), &good), TokenError::Critical),
        (rsa.sign(&header("RS256"), &json!([1])), TokenError::NoClaims),
        (rsa.sign(&header("RS256"), &json!("x")), TokenError::NoClaims),
        (format!("{token}="), TokenError::Malformed),
        (format!("{token}.x"), TokenError::Malformed),
        (format!("{}.{}.?", parts[0], parts[1]), TokenError::Malformed),
        (String::new(), TokenError::Malformed),
        ("..".to_owned(), TokenError::Malformed),
        (format!("{token}.{}", "A".repeat(TOKEN_MAX_BYTES)), TokenError::TooLong),
    ] {
        assert_eq!(verify(&public(&rsa), &token), Err(expected), "{token}");
    }
    assert_eq!(verify(&options(), &token), Err(TokenError::NoKey));
    // A key in the token is ignored.
    let own = json!({ "alg": "RS256", "jwk": other.jwk(), "jku": "http://127.0.0.1/keys" });
    assert_eq!(verify(&public(&rsa), &other.sign(&own, &good)), Err(TokenError::Signature));
    assert!(verify(&public(&rsa), &token).is_ok());
}

#[test]
fn a_token_is_valid_for_its_time() {
    let day = 86_400;
    for (changes, expected) in [
        (json!({}), Ok(())),
        (json!({ "exp": null }), Err(TokenError::Missing("exp".to_owned()))),
        (json!({ "exp": NOW_S - LEEWAY_S }), Err(TokenError::Expired)),
        (json!({ "exp": NOW_S - LEEWAY_S + 1 }), Ok(())),
        (json!({ "exp": 0 }), Err(TokenError::Expired)),
        (json!({ "exp": NOW_S + 30 * day }), Ok(())),
        (json!({ "exp": NOW_S + 30 * day + 1 }), Err(TokenError::TooLongLived)),
        (json!({ "exp": u64::MAX }), Err(TokenError::TooLongLived)),
        (json!({ "exp": NOW_S + day, "iat": NOW_S - 29 * day }), Ok(())),
        (json!({ "exp": NOW_S + day, "iat": NOW_S - 29 * day - 1 }), Err(TokenError::TooLongLived)),
        (json!({ "iat": NOW_S + LEEWAY_S }), Ok(())),
        (json!({ "iat": NOW_S + LEEWAY_S + 1 }), Err(TokenError::IssuedLater)),
        (json!({ "iat": u64::MAX }), Err(TokenError::IssuedLater)),
        (json!({ "nbf": NOW_S + LEEWAY_S }), Ok(())),
        (json!({ "nbf": NOW_S + LEEWAY_S + 1 }), Err(TokenError::NotYetValid)),
        (json!({ "nbf": 1_799_999_999.5, "iat": 1_799_999_999.5, "exp": 1_800_000_000.5 }), Ok(())),
    ] {
        assert_eq!(claim(&secret(), &changes).map(|_| ()), expected, "{changes}");
    }
    for (name, value) in [
        ("exp", json!("1900000000")),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("nbf", json!(true)),
        ("iat", json!({})),
    ] {
        let error = claim(&secret(), &json!({ name: value })).unwrap_err();
        assert!(
            matches!(&error, TokenError::Claim { claim, .. } if claim == name),
            "{name} {value} {error:?}"
        );
    }
    // The library refuses this before our check.
    assert_eq!(claim(&secret(), &json!({ "exp": [NOW_S + 60] })), Err(TokenError::NoClaims));
}

#[test]
fn a_token_is_for_this_service_and_from_its_issuer() {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let both = IdentityOptions {
        jwt_audience: words(&["bells", " chimes"]),
        jwt_issuer: words(&["idp", "old-idp"]),
        ..secret()
    };
    let missing = |name: &str| Err(TokenError::Missing(name.to_owned()));
    for (options, changes, expected) in [
        (&secret(), json!({ "iss": "anybody" }), Ok(())),
        (&secret(), json!({ "aud": "bells" }), Err(TokenError::NoAudience)),
        (&secret(), json!({ "aud": [] }), Err(TokenError::NoAudience)),
        (&secret(), json!({ "aud": 7 }), Err(TokenError::NoAudience)),
        (&secret(), json!({ "aud": null }), Ok(())),
        (&both, json!({ "iss": "idp", "aud": "bells" }), Ok(())),
        (&both, json!({ "iss": "old-idp", "aud": ["other", "chimes"] }), Ok(())),
        (&both, json!({ "iss": "idp" }), missing("aud")),
        (&both, json!({ "iss": "idp", "aud": "bell" }), Err(TokenError::Audience)),
        (&both, json!({ "iss": "idp", "aud": ["Bells"] }), Err(TokenError::Audience)),
        (&both, json!({ "iss": "idp", "aud": [] }), Err(TokenError::Audience)),
        (&both, json!({ "iss": "idp", "aud": { "bells": true } }), Err(TokenError::Audience)),
        (&both, json!({ "aud": "bells" }), missing("iss")),
        (&both, json!({ "iss": "idp2", "aud": "bells" }), Err(TokenError::Issuer)),
        (&both, json!({ "iss": ["idp"], "aud": "bells" }), Err(TokenError::Issuer)),
    ] {
        assert_eq!(claim(options, &changes).map(|_| ()), expected, "{changes}");
    }
}

#[test]
fn a_token_has_a_user_topics_and_recipients() {
    let sub = IdentityOptions { jwt_user_claim: "sub".to_owned(), ..secret() };
    let long = "x".repeat(128);
    for (options, changes, expected) in [
        (&secret(), json!({ "user_id": 42 }), Some("42")),
        (&secret(), json!({ "user_id": -1 }), Some("-1")),
        (&secret(), json!({ "user_id": u64::MAX }), Some("18446744073709551615")),
        (&secret(), json!({ "user_id": "José" }), Some("José")),
        (&secret(), json!({ "user_id": long }), Some(long.as_str())),
        (&secret(), json!({ "user_id": "x".repeat(129) }), None),
        (&secret(), json!({ "user_id": "é".repeat(65) }), None),
        (&secret(), json!({ "user_id": "" }), None),
        (&secret(), json!({ "user_id": "state" }), Some("state")),
        (&secret(), json!({ "user_id": "bob:state" }), None),
        (&secret(), json!({ "user_id": 1.5 }), None),
        (&secret(), json!({ "user_id": 1e20 }), None),
        (&secret(), json!({ "user_id": null }), None),
        (&secret(), json!({ "user_id": ["ann"] }), None),
        (&sub, json!({ "sub": "bob" }), Some("bob")),
        (&sub, json!({}), None),
    ] {
        let checked = claim(options, &changes);
        assert_eq!(checked.as_ref().ok().map(|one| one.user.as_str()), expected, "{changes} {checked:?}");
        let is_about_it = matches!(checked, Ok(_) | Err(TokenError::Claim { .. } | TokenError::Missing(_)));
        assert!(is_about_it, "{checked:?}");
    }
    let all =
        json!({ "iat": NOW_S - 9, "jti": "t-1", "topics": ["news", "team.*"], "role": { "deep": [1] } });
    let identity = claim(&secret(), &all).unwrap();
    assert_eq!(identity.expires_at_ms, (NOW_S + 3_600 + LEEWAY_S) * 1_000);
    assert_eq!((identity.issued_at_s, identity.token_id.as_deref()), (NOW_S - 9, Some("t-1")));
    assert!(identity.may_read("news") && identity.may_read("team.a"));
    assert!(!identity.may_read("team") && !identity.may_read("newsroom"));
    let bare = claim(&secret(), &json!({})).unwrap();
    assert_eq!((bare.issued_at_s, bare.token_id, bare.topics), (0, None, Vec::new()));
    for wrong in [
        json!({ "jti": "" }),
        json!({ "jti": 7 }),
        json!({ "jti": "x".repeat(129) }),
        json!({ "topics": "news" }),
        json!({ "topics": ["news", 7] }),
        json!({ "topics": [""] }),
        json!({ "topics": vec!["news"; 65] }),
    ] {
        let error = claim(&secret(), &wrong).unwrap_err();
        assert!(matches!(error, TokenError::Claim { .. }), "{wrong} {error:?}");
    }
}

#[test]
fn several_keys_are_valid_during_a_rotation() {
    let (old, new, rsa) = (Signer::p256(), Signer::p256().named("2"), Signer::rsa());
    let second = "another secret, of thirty-two bytes";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.pem");
    let text = format!("{}\n# and\n{}{}", old.public_pem(), new.public_pem(), rsa.public_pem());
    std::fs::write(&file, text).unwrap();
    let options = IdentityOptions {
        jwt_secret: [SECRET, " ", second].map(|one| one.into()).to_vec(),
        ..pem(&format!("{}\n", file.display()))
    };
    for signer in [&old, &new, &rsa, &Signer::secret(SECRET), &Signer::secret(second)] {
        assert!(verify(&options, &signer.token(&claims(&json!({})))).is_ok(), "{}", signer.algorithm());
    }
    let stranger = Signer::p256().token(&claims(&json!({})));
    assert_eq!(verify(&options, &stranger), Err(TokenError::Signature));
    let one_line = pem(&old.public_pem().replace('\n', "\\n"));
    assert!(verify(&one_line, &old.token(&claims(&json!({})))).is_ok());
}

#[test]
fn an_invalid_key_is_refused_at_the_start() {
    let secrets = |list: &str| IdentityOptions {
        jwt_secret: list.split(',').map(|one| one.into()).collect(),
        ..options()
    };
    let url = |url: &str| IdentityOptions { jwks_url: Some(url.to_owned()), ..options() };
    let made = |args: &[&str]| pem(&Signer::public_pem_of(args));
    let curve = |name: &str| made(&["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{name}")]);
    for (options, expected) in [
        (secrets("x"), "at least 32 bytes"),
        (secrets(&"x".repeat(31)), "this one has 31"),
        (secrets(&format!("{SECRET},hunter2")), "this one has 7"),
        (pem("/nowhere/at.all"), "/nowhere/at.all: No such file"),
        (pem(&pem_of("PRIVATE KEY", b"anything")), "only public keys belong here"),
        (pem(&pem_of("CERTIFICATE", b"anything")), "openssl x509"),
        (pem(&pem_of("PUBLIC KEY", b"anything")), "RSA of 2048 to 8192 bits"),
        (pem("-----BEGIN PUBLIC KEY-----\n"), "JWT_PUBLIC_KEY: "),
        (pem(&pem_of("GREETING", b"hello")), "no PUBLIC KEY"),
        (pem(&Signer::p256().public_pem().repeat(STATIC_KEYS_MAX + 1)), "9 keys, at most 8"),
        (made(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]), "RSA of 2048"),
        (curve("P-521"), "P-256 or P-384"),
        (curve("secp256k1"), "P-256 or P-384"),
        (made(&["-algorithm", "ED448"]), "Ed25519"),
        (url("file:///keys"), "begins with http://"),
        (url("https://a:b@c/"), "remove them"),
    ] {
        let fault = Tokens::new(&options).unwrap_err().to_string();
        assert!(fault.contains(expected), "{fault}");
        assert!(!fault.contains("hunter2") && !fault.contains("anything"), "{fault}");
    }
    let blank = IdentityOptions { jwt_secret: vec![" ".into()], jwks_url: Some(String::new()), ..pem("") };
    assert!(!Tokens::new(&blank).unwrap().is_configured());
}

#[test]
fn a_published_key_is_used_for_its_purpose() {
    provider::install();
    assert!(Key::jwk(&Signer::secret(SECRET).jwk()).is_none(), "a published secret is ignored");
    let rsa = Signer::rsa();
    let with = |name: &str, value: Value| {
        let mut jwk = rsa.jwk();
        jwk[name] = value;
        Key::jwk(&jwk)
    };
    assert!(with("use", json!("sig")).is_some() && with("key_ops", json!(["verify"])).is_some());
    for (name, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["encrypt"])),
        ("alg", json!("RSA-OAEP")),
        ("alg", json!("HS256")),
        ("alg", json!("ES256")),
        ("kty", json!("EC")),
        ("kty", json!("oct")),
        ("n", json!("AQAB")),
        ("n", json!("?")),
        ("kid", json!(7)),
    ] {
        assert!(with(name, value.clone()).is_none(), "{name} {value}");
    }
    let only = with("alg", json!("PS256")).unwrap();
    let token = |algorithm: &str| rsa.sign(&header(algorithm), &claims(&json!({})));
    assert!(only.open(&token("PS256")).is_ok());
    assert_eq!(only.open(&token("RS256")), Err(TokenError::Algorithm));
    for (signer, curve) in [
        (Signer::p256(), "P-384"),
        (Signer::p384(), "P-256"),
        (Signer::p256(), "P-521"),
        (Signer::ed25519(), "Ed448"),
    ] {
        let mut jwk = signer.jwk();
        assert!(Key::jwk(&jwk).unwrap().open(&signer.token(&claims(&json!({})))).is_ok());
        jwk["crv"] = curve.into();
        assert!(Key::jwk(&jwk).is_none(), "{curve}");
    }
    // Some write the modulus as in DER, with a zero before it.
    let modulus = URL_SAFE_NO_PAD.decode(rsa.jwk()["n"].as_str().unwrap()).unwrap();
    let modulus = URL_SAFE_NO_PAD.encode([&[0], &modulus[..]].concat());
    assert!(with("n", json!(modulus)).unwrap().open(&token("RS256")).is_ok());
}

#[test]
fn a_refusal_helps_and_reveals_nothing() {
    let options = IdentityOptions {
        jwt_audience: vec!["bells".to_owned()],
        jwt_issuer: vec!["the-idp".to_owned()],
        ..secret()
    };
    for changes in [
        json!({ "iss": "x", "aud": "bells" }),
        json!({ "iss": "the-idp", "aud": "x" }),
        json!({}),
        json!({ "exp": 1 }),
    ] {
        let text = claim(&options, &changes).unwrap_err().to_string();
        assert!(text.len() > 20, "{text}");
        for hidden in ["bells", "the-idp", SECRET] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
    assert!(!format!("{:?}", Tokens::new(&options).unwrap()).contains(SECRET));
}

fn pem_of(label: &str, bytes: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes))
}
