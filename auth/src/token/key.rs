use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, Header, Validation, crypto, decode, decode_header,
};
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde_json::{Map, Value};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::error::TokenError;

/// Minimum bytes of a secret; a shorter one can be guessed (RFC 7518, section 3.2, requires the length of the hash).
const SECRET_MIN_BYTES: usize = 32;
/// Bytes of an RSA modulus; shorter keys are broken, longer ones take too long.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;
/// Bytes that DER adds around the modulus of an RSA key.
const RSA_DER_AROUND: std::ops::RangeInclusive<usize> = 11..=32;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The name of EdDSA with such a key in RFC 9864.
const ED25519_NAME: &str = "Ed25519";

/// The type of a key. It alone decides which algorithms may be used: if a header could choose, a public key could be used as
/// a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    fn algorithms(self) -> &'static [Algorithm] {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Secret => &[HS256, HS384, HS512],
            Self::Rsa => &[RS256, RS384, RS512, PS256, PS384, PS512],
            Self::P256 => &[ES256],
            Self::P384 => &[ES384],
            Self::Ed25519 => &[EdDSA],
        }
    }
}

/// A key to verify signatures.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    decoding: DecodingKey,
    /// The algorithms of the key. It requires no claims: they are checked in `claims`, with a given time.
    validation: Validation,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.validation.algorithms)
    }
}

impl Key {
    fn new(kind: Kind, decoding: DecodingKey) -> Self {
        let mut validation = Validation {
            algorithms: kind.algorithms().to_vec(),
            validate_exp: false,
            validate_aud: false,
            ..Validation::default()
        };
        validation.required_spec_claims.clear();
        Self { id: None, decoding, validation }
    }

    /// Returns a key for HS256, HS384 and HS512.
    pub(super) fn secret(secret: &str) -> Result<Self, String> {
        if secret.len() < SECRET_MIN_BYTES {
            return Err(format!(
                "a secret has at least {SECRET_MIN_BYTES} bytes (a comma ends it), this one has {}: generate one with `openssl rand -hex 32`",
                secret.len()
            ));
        }
        Ok(Self::new(Kind::Secret, DecodingKey::from_secret(secret.as_bytes())))
    }

    /// Returns all public keys of a PEM text.
    pub(super) fn pem(text: &str) -> Result<Vec<Self>, String> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            let (kind, der) = section.map_err(|_| "this is not a PEM text".to_owned())?;
            match kind {
                SectionKind::PublicKey => keys.push(Self::spki(&der)?),
                SectionKind::Certificate => {
                    return Err(
                        "a certificate is not a key: extract the key with `openssl x509 -pubkey -noout`"
                            .to_owned(),
                    );
                }
                _ => {
                    return Err(
                        "only public keys belong here: `openssl pkey -pubout` extracts it from a private key"
                            .to_owned(),
                    );
                }
            }
        }
        if keys.is_empty() {
            return Err("there is no PUBLIC KEY in it".to_owned());
        }
        Ok(keys)
    }

    /// Parses a key in the form of a certificate: its type, and then the key.
    fn spki(der: &[u8]) -> Result<Self, String> {
        let unknown = || "a key is RSA of 2048 to 8192 bits, EC on P-256 or P-384, or Ed25519".to_owned();
        let info = SubjectPublicKeyInfoRef::try_from(der).map_err(|_| unknown())?;
        let key = info.subject_public_key.as_bytes().ok_or_else(unknown)?;
        let curve = || info.algorithm.parameters_oid().ok();
        let fits = |bytes: usize| (key.len() == bytes).then_some(()).ok_or_else(unknown);
        match info.algorithm.oid {
            RSA => {
                let bytes =
                    RSA_BYTES.start() + RSA_DER_AROUND.start()..=RSA_BYTES.end() + RSA_DER_AROUND.end();
                bytes.contains(&key.len()).then_some(()).ok_or_else(unknown)?;
                Ok(Self::new(Kind::Rsa, DecodingKey::from_rsa_der(key)))
            }
            EC if curve() == Some(P256) => {
                fits(65)?;
                Ok(Self::new(Kind::P256, DecodingKey::from_ec_der(key)))
            }
            EC if curve() == Some(P384) => {
                fits(97)?;
                Ok(Self::new(Kind::P384, DecodingKey::from_ec_der(key)))
            }
            ED25519 => {
                fits(32)?;
                Ok(Self::new(Kind::Ed25519, DecodingKey::from_ed_der(key)))
            }
            _ => Err(unknown()),
        }
    }

    /// Returns the claims of a token that names its algorithm like RFC 9864, which `jsonwebtoken` does not support.
    fn open_renamed(&self, token: &str, header: &Header) -> Result<Map<String, Value>, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (_, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        match crypto::verify(signature, message.as_bytes(), &self.decoding, header.alg) {
            Ok(true) => {}
            Ok(false) => return Err(TokenError::Signature),
            Err(_) => return Err(TokenError::Malformed),
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Malformed)?;
        serde_json::from_slice(&claims).map_err(|_| TokenError::NoClaims)
    }

    /// Parses a key of a JWKS, if it is public, for signatures, and of a supported type.
    pub fn jwk(value: &Value) -> Option<Self> {
        let mut value = value.clone();
        if value.get("alg").and_then(Value::as_str) == Some(ED25519_NAME) {
            value["alg"] = "EdDSA".into();
        }
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
            && jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Kind::Rsa,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Kind::P256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => Kind::P384,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Kind::Ed25519,
            // Symmetric keys in a JWKS are ignored: a published secret is not secret.
            _ => return None,
        };
        let mut key = Self::new(kind, without_zeros(DecodingKey::from_jwk(&jwk).ok()?));
        if let Some(only) = jwk.common.key_algorithm {
            let only = Algorithm::try_from(only).ok()?;
            key.validation.algorithms.retain(|algorithm| *algorithm == only);
        }
        key.id = jwk.common.key_id;
        let is_usable = is_for_signatures && key.has_its_size(kind) && !key.validation.algorithms.is_empty();
        is_usable.then_some(key)
    }

    fn has_its_size(&self, kind: Kind) -> bool {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        match (kind, self.decoding.kind()) {
            (Kind::Rsa, RsaModulusExponent { n, .. }) => RSA_BYTES.contains(&n.len()),
            (Kind::P256, SecretOrDer(key)) => key.len() == 65,
            (Kind::P384, SecretOrDer(key)) => key.len() == 97,
            (Kind::Ed25519, SecretOrDer(key)) => key.len() == 32,
            _ => false,
        }
    }

    /// The `kid` of the key.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether the key is for this algorithm.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.validation.algorithms.contains(&algorithm)
    }

    /// Returns the claims of a token that was signed with this key.
    pub(super) fn open(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        if let Some(header) = renamed(token).filter(|header| self.is_for(header.alg)) {
            return self.open_renamed(token, &header);
        }
        match decode(token, &self.decoding, &self.validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
                ErrorKind::Json(_) => TokenError::NoClaims,
                _ => TokenError::Malformed,
            }),
        }
    }
}

/// Returns the header of a token with a supported algorithm.
pub fn header(token: &str) -> Option<Header> {
    decode_header(token).ok().or_else(|| renamed(token))
}

/// Returns the header of a token whose algorithm is `Ed25519` (RFC 9864), under the older name.
fn renamed(token: &str) -> Option<Header> {
    let mut parts = token.split('.');
    let header = URL_SAFE_NO_PAD.decode(parts.next()?).ok().filter(|_| parts.count() == 2)?;
    let mut header: Value = serde_json::from_slice(&header).ok()?;
    if header.get("alg")?.as_str()? != ED25519_NAME {
        return None;
    }
    header["alg"] = "EdDSA".into();
    serde_json::from_value(header).ok()
}

/// Some write a zero before the modulus, as in DER; ring accepts numbers without it.
fn without_zeros(key: DecodingKey) -> DecodingKey {
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            let start = |number: &[u8]| number.iter().take_while(|byte| **byte == 0).count();
            DecodingKey::from_rsa_raw_components(&n[start(n)..], &e[start(e)..])
        }
        DecodingKeyKind::SecretOrDer(_) => key,
    }
}

#[cfg(test)]
mod tests {
    use carillon_harness::Signer;
    use serde_json::json;

    use super::*;
    use crate::options::IdentityOptions;
    use crate::token::tests::{NOW_S, secret, verify};

    #[test]
    fn eddsa_is_called_ed25519_as_well() {
        let (signer, other) = (Signer::ed25519(), Signer::ed25519());
        let options = IdentityOptions {
            jwt_public_key: Some(signer.public_pem().to_owned()),
            ..IdentityOptions::default()
        };
        let claims = json!({ "user_id": "ann", "exp": NOW_S + 60 });
        let header = json!({ "alg": "Ed25519", "typ": "JWT" });
        let token = signer.sign(&header, &claims);
        assert_eq!(verify(&options, &token).unwrap().user, "ann");
        assert_eq!(verify(&options, &other.sign(&header, &claims)), Err(TokenError::Signature));
        assert_eq!(verify(&options, &format!("{token}.x")), Err(TokenError::Malformed));
        assert_eq!(verify(&secret(), &token), Err(TokenError::Algorithm), "the algorithm is the key's");
        let critical = json!({ "alg": "Ed25519", "crit": ["x"] });
        assert_eq!(verify(&options, &signer.sign(&critical, &claims)), Err(TokenError::Critical));
        let mut jwk = signer.jwk();
        jwk["alg"] = "Ed25519".into();
        assert!(Key::jwk(&jwk).unwrap().open(&token).is_ok());
        assert!(Key::jwk(&jwk).unwrap().open(&signer.token(&claims)).is_ok(), "by its older name");
    }
}
