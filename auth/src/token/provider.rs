//! Verifies signatures with ring, which TLS uses already: the providers of `jsonwebtoken` would add a second cryptographic
//! library to the program.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::signature as with;

static RING: CryptoProvider =
    CryptoProvider { signer_factory, verifier_factory, key_utils: KeyUtils::new_unimplemented() };

/// Makes `jsonwebtoken` use ring in this process. It may be called again.
pub(super) fn install() {
    // Only the first call of a process has an effect, and all calls are the same.
    let _ = RING.install_default();
}

/// This crate does not sign tokens.
fn signer_factory(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let is_good = match (self.algorithm.family(), self.key.kind()) {
            (AlgorithmFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) => {
                let key = hmac::Key::new(hmac_of(self.algorithm)?, secret);
                hmac::verify(&key, message, signature).is_ok()
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => {
                let key = with::UnparsedPublicKey::new(rsa_of(self.algorithm)?, der);
                key.verify(message, signature).is_ok()
            }
            (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                let key = with::RsaPublicKeyComponents { n, e };
                key.verify(rsa_of(self.algorithm)?, message, signature).is_ok()
            }
            (AlgorithmFamily::Ec | AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) => {
                let key = with::UnparsedPublicKey::new(curve_of(self.algorithm)?, point);
                key.verify(message, signature).is_ok()
            }
            _ => false,
        };
        if is_good { Ok(()) } else { Err(Error::new()) }
    }
}

fn hmac_of(algorithm: Algorithm) -> std::result::Result<hmac::Algorithm, Error> {
    match algorithm {
        Algorithm::HS256 => Ok(hmac::HMAC_SHA256),
        Algorithm::HS384 => Ok(hmac::HMAC_SHA384),
        Algorithm::HS512 => Ok(hmac::HMAC_SHA512),
        _ => Err(Error::new()),
    }
}

fn rsa_of(algorithm: Algorithm) -> std::result::Result<&'static with::RsaParameters, Error> {
    match algorithm {
        Algorithm::RS256 => Ok(&with::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Ok(&with::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Ok(&with::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Ok(&with::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Ok(&with::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Ok(&with::RSA_PSS_2048_8192_SHA512),
        _ => Err(Error::new()),
    }
}

fn curve_of(algorithm: Algorithm) -> std::result::Result<&'static dyn with::VerificationAlgorithm, Error> {
    match algorithm {
        Algorithm::ES256 => Ok(&with::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Ok(&with::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Ok(&with::ED25519),
        _ => Err(Error::new()),
    }
}
