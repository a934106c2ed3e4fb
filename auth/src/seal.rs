//! Session tokens: a browser without a signed-in user keeps one, and so has the same session when it reconnects, to any
//! replica. The token has the session's number and times, encrypted and authenticated: only this service can create one, and
//! it stores nothing. All tokens have the same length.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ring::digest;

/// The operating system returned no random bytes.
pub use getrandom::Error as RandomError;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of every token, which consists of letters, digits, `-` and `_`.
pub const TOKEN_BYTES: usize = 98;
/// An unused session ends after this: 7 days, in milliseconds. Its history is kept as long.
pub const SESSION_MS: u64 = 7 * DAY_MS;
/// Any session ends this long after it began: 30 days, in milliseconds.
pub const SESSION_MAX_MS: u64 = 30 * DAY_MS;
/// A token is renewed when it is older than this: one day, in milliseconds.
pub const RENEW_AFTER_MS: u64 = DAY_MS;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The first byte of a token: its format, and the cipher.
const VERSION: u8 = 1;
/// The purpose in the authenticated data: text that the key seals for another purpose does not open as a token, and the
/// other way round.
const PURPOSE: [u8; 17] = *b"carillon session\x01";
const NONCE_BYTES: usize = 24;
const PLAIN_BYTES: usize = 16 + 8 + 8;
const TAG_BYTES: usize = 16;
const RAW_BYTES: usize = 1 + NONCE_BYTES + PLAIN_BYTES + TAG_BYTES;
/// The age of a session when its token was created, in minutes, is in the upper bits of the creation time, which are zero
/// until the year 10889. The release before this one left them zero, for a session that begins with its token; it reads them
/// as a time in the future, and opens the token until it expires.
const AGE_SHIFT: u32 = 48;
const MINUTE_MS: u64 = 60_000;
const _: () = assert!(SESSION_MAX_MS / MINUTE_MS < 1 << (u64::BITS - AGE_SHIFT));
const _: () = assert!(PURPOSE[16] == VERSION && TOKEN_BYTES == (RAW_BYTES * 8).div_ceil(6));

/// The id of a session: 128 random bits, written as 32 hexadecimal digits. It is not secret; only the token opens the
/// session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u128);

impl std::str::FromStr for SessionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = u128::from_str_radix(text, 16).map(Self).map_err(drop)?;
        // Each id has only one representation.
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

/// The id of a key, which does not reveal the key: 16 hexadecimal digits of its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// Returns the id of a key.
    pub fn of(key: &[u8; KEY_BYTES]) -> Self {
        let hash = digest::digest(&digest::SHA256, key);
        Self(hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The content of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The id of the session.
    pub id: SessionId,
    /// When it began, in milliseconds since 1970, to the minute.
    pub began_at_ms: u64,
    /// When this token was created, in milliseconds since 1970.
    pub issued_at_ms: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

impl Session {
    /// Creates a session at `now_ms` since 1970.
    ///
    /// # Errors
    /// When the operating system returns no random bytes.
    pub fn new(now_ms: u64) -> Result<Self, RandomError> {
        let id = SessionId(u128::from_be_bytes(random()?));
        let expires_at_ms = now_ms.saturating_add(SESSION_MS);
        Ok(Self { id, began_at_ms: now_ms, issued_at_ms: now_ms, expires_at_ms })
    }

    /// Returns the session for a further [`SESSION_MS`], once its token is older than [`RENEW_AFTER_MS`]; never beyond
    /// [`SESSION_MAX_MS`].
    pub fn renewed(&self, now_ms: u64) -> Option<Self> {
        let is_old = now_ms.saturating_sub(self.issued_at_ms) > RENEW_AFTER_MS;
        let end_ms = self.began_at_ms.saturating_add(SESSION_MAX_MS);
        let expires_at_ms = now_ms.saturating_add(SESSION_MS).min(end_ms);
        is_old.then_some(Self { issued_at_ms: now_ms, expires_at_ms, ..*self })
    }

    fn to_bytes(self) -> [u8; PLAIN_BYTES] {
        let mut plain = [0; PLAIN_BYTES];
        plain[..16].copy_from_slice(&self.id.0.to_be_bytes());
        // Rounded up: a session may end a minute too early, but never too late.
        let age_minutes = self.issued_at_ms.saturating_sub(self.began_at_ms).div_ceil(MINUTE_MS);
        let issued = self.issued_at_ms | age_minutes << AGE_SHIFT;
        plain[16..24].copy_from_slice(&issued.to_be_bytes());
        plain[24..].copy_from_slice(&self.expires_at_ms.to_be_bytes());
        plain
    }

    fn from_bytes(plain: &[u8]) -> Option<Self> {
        let (id, times) = plain.split_first_chunk()?;
        let (issued, expires) = times.split_first_chunk()?;
        let issued = u64::from_be_bytes(*issued);
        let (issued_at_ms, age_minutes) = (issued & ((1 << AGE_SHIFT) - 1), issued >> AGE_SHIFT);
        Some(Self {
            id: SessionId(u128::from_be_bytes(*id)),
            began_at_ms: issued_at_ms.saturating_sub(age_minutes * MINUTE_MS),
            issued_at_ms,
            expires_at_ms: u64::from_be_bytes(expires.try_into().ok()?),
        })
    }
}

/// Why a text does not open a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It does not have the form of a token.
    #[error("this text is not a session token of this service: request a new one with session=new")]
    Malformed,
    /// It has a format that this version does not know.
    #[error("this text is not a session token of this service: request a new one with session=new")]
    OtherVersion,
    /// It was not sealed with one of our keys, or it was changed.
    #[error("this text is not a session token of this service: request a new one with session=new")]
    Forged,
    /// It has expired.
    #[error("the session has expired: request a new one with session=new")]
    Expired,
}

impl SealError {
    /// Returns the reason as a word, for metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::OtherVersion => "other_version",
            Self::Forged => "forged",
            Self::Expired => "expired",
        }
    }
}

/// Seals and opens session tokens with XChaCha20-Poly1305.
#[derive(Clone)]
pub struct Sealer {
    seals: (KeyId, XChaCha20Poly1305),
    /// Older keys, which still open.
    older: Vec<(KeyId, XChaCha20Poly1305)>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({} keys hidden)", 1 + self.older.len())
    }
}

impl Sealer {
    /// Creates a sealer that seals with `key`, and opens tokens of it and of the `older` keys.
    pub fn new(key: &[u8; KEY_BYTES], older: &[[u8; KEY_BYTES]]) -> Self {
        let cipher = |key: &[u8; KEY_BYTES]| (KeyId::of(key), XChaCha20Poly1305::new(key.into()));
        Self { seals: cipher(key), older: older.iter().map(cipher).collect() }
    }

    /// The id of the key that seals.
    pub fn key(&self) -> &KeyId {
        &self.seals.0
    }

    /// Generates a key for [`Sealer::new`].
    ///
    /// # Errors
    /// When the operating system returns no random bytes.
    pub fn new_key() -> Result<[u8; KEY_BYTES], RandomError> {
        random()
    }

    /// Returns a token of a session, another one at each call.
    ///
    /// # Errors
    /// When the operating system returns no random bytes.
    pub fn seal(&self, session: &Session) -> Result<String, RandomError> {
        // 24 random bytes do not repeat by chance, however many tokens one key seals.
        let nonce: [u8; NONCE_BYTES] = random()?;
        let payload = Payload { msg: &session.to_bytes(), aad: &PURPOSE };
        // It fails only for texts of 256 GiB.
        let sealed =
            self.seals.1.encrypt(&XNonce::from(nonce), payload).map_err(|_| RandomError::UNEXPECTED)?;
        Ok(URL_SAFE_NO_PAD.encode([&[VERSION], nonce.as_slice(), &sealed].concat()))
    }

    /// Returns the session of a token at `now_ms` since 1970.
    ///
    /// # Errors
    /// The first fault.
    pub fn open(&self, token: &str, now_ms: u64) -> Result<Session, SealError> {
        self.open_by(token, now_ms).map(|(session, _)| session)
    }

    /// Like [`Sealer::open`], with the id of the key that sealed it.
    ///
    /// # Errors
    /// The first fault.
    pub fn open_by(&self, token: &str, now_ms: u64) -> Result<(Session, &KeyId), SealError> {
        if token.len() != TOKEN_BYTES {
            return Err(SealError::Malformed);
        }
        let raw = URL_SAFE_NO_PAD.decode(token).map_err(|_| SealError::Malformed)?;
        let (version, raw) = raw.split_first().ok_or(SealError::Malformed)?;
        if *version != VERSION {
            return Err(SealError::OtherVersion);
        }
        let (nonce, sealed) = raw.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Malformed)?;
        let nonce = XNonce::from(*nonce);
        let payload = || Payload { msg: sealed, aad: &PURPOSE };
        let (plain, key) = std::iter::once(&self.seals)
            .chain(&self.older)
            .find_map(|(key, cipher)| Some((cipher.decrypt(&nonce, payload()).ok()?, key)))
            .ok_or(SealError::Forged)?;
        let session = Session::from_bytes(&plain).ok_or(SealError::Malformed)?;
        if now_ms < session.expires_at_ms { Ok((session, key)) } else { Err(SealError::Expired) }
    }
}

fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
