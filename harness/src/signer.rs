use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};

use crate::need;

/// An issuer of tokens: it signs valid and invalid JWTs, and publishes its key.
pub struct Signer {
    key: Key,
    public_pem: String,
    kid: Option<String>,
}

enum Key {
    Secret(String),
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// Signs with HS256, HS384 and HS512.
    pub fn secret(secret: &str) -> Self {
        Self { key: Key::Secret(secret.to_owned()), public_pem: String::new(), kid: None }
    }

    /// Signs with RS… and PS….
    pub fn rsa() -> Self {
        let (der, public_pem) = generate(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
        Self { key: Key::Rsa(RsaKeyPair::from_pkcs8(&der).expect("an RSA key")), public_pem, kid: None }
    }

    /// Signs with ES256.
    pub fn p256() -> Self {
        let (key, public_pem) = curve("P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING);
        Self { key: Key::P256(key), public_pem, kid: None }
    }

    /// Signs with ES384.
    pub fn p384() -> Self {
        let (key, public_pem) = curve("P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING);
        Self { key: Key::P384(key), public_pem, kid: None }
    }

    /// Signs with `EdDSA`.
    pub fn ed25519() -> Self {
        let (der, public_pem) = generate(&["-algorithm", "ED25519"]);
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).expect("an Ed25519 key");
        Self { key: Key::Ed25519(key), public_pem, kid: None }
    }

    /// Returns the public part, as PEM, of a key that `openssl genpkey` generates with these arguments.
    pub fn public_pem_of(args: &[&str]) -> String {
        generate(args).1
    }

    /// Gives the key a name, which its tokens carry.
    pub fn named(self, kid: &str) -> Self {
        Self { kid: Some(kid.to_owned()), ..self }
    }

    /// Returns the first algorithm of the key.
    pub fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Secret(_) => "HS256",
            Key::Rsa(_) => "RS256",
            Key::P256(_) => "ES256",
            Key::P384(_) => "ES384",
            Key::Ed25519(_) => "EdDSA",
        }
    }

    /// Returns a token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let mut header = json!({ "typ": "JWT", "alg": self.algorithm() });
        if let Some(kid) = &self.kid {
            header["kid"] = kid.as_str().into();
        }
        self.sign(&header, claims)
    }

    /// Returns a token with this header, signed with the algorithm that it names or, where the key does not have that, with
    /// the key's first one.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.signature(header["alg"].as_str().unwrap_or_default(), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns the public key as PEM; empty for a secret.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// Returns the public key for a JWKS; for a secret, a key that no JWKS should have.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = |curve: &str, key: &EcdsaKeyPair| {
            let (x, y) = key.public_key().as_ref()[1..].split_at((key.public_key().as_ref().len() - 1) / 2);
            json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) })
        };
        let mut jwk = match &self.key {
            Key::Secret(secret) => json!({ "kty": "oct", "k": text(secret.as_bytes()) }),
            Key::Rsa(key) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({ "kty": "RSA", "n": text(&parts.n), "e": text(&parts.e) })
            }
            Key::P256(key) => point("P-256", key),
            Key::P384(key) => point("P-384", key),
            Key::Ed25519(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref()) })
            }
        };
        if let Some(kid) = &self.kid {
            jwk["kid"] = kid.as_str().into();
        }
        jwk
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Secret(secret) => {
                let algorithm = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), message).as_ref().to_vec()
            }
            Key::Rsa(key) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &random, message, &mut signature).expect("a signature");
                signature
            }
            Key::P256(key) | Key::P384(key) => {
                key.sign(&random, message).expect("a signature").as_ref().to_vec()
            }
            Key::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}

fn curve(name: &str, algorithm: &'static signature::EcdsaSigningAlgorithm) -> (EcdsaKeyPair, String) {
    let (der, public_pem) = generate(&["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{name}")]);
    (EcdsaKeyPair::from_pkcs8(algorithm, &der, &SystemRandom::new()).expect("a key on a curve"), public_pem)
}

/// Generates a private key (PKCS 8), and its public part as PEM.
fn generate(args: &[&str]) -> (Vec<u8>, String) {
    let private = openssl(&[&["genpkey"], args].concat(), "");
    let public = openssl(&["pkey", "-pubout"], &private);
    let body: String = private.lines().filter(|line| !line.starts_with("-----")).collect();
    (STANDARD.decode(body).expect("a PEM text"), public)
}

fn openssl(args: &[&str], input: &str) -> String {
    need("openssl", "openssl");
    let mut command = Command::new("openssl");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl starts");
    let mut stdin = child.stdin.take().expect("its input");
    // A command that reads no input may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl {}", args.join(" "));
    String::from_utf8(output.stdout).expect("a text")
}
