//! Session tokens: what a browser that nobody signed in keeps, to be the same session when it comes
//! back, on whichever replica. The token is the session's number and its times, encrypted and
//! authenticated: nobody else can make one, and nothing about it is stored. It is as long for all.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ring::digest;

/// The operating system gives no random bytes.
pub use getrandom::Error as RandomError;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of every token, which is letters, digits, `-` and `_`.
pub const TOKEN_BYTES: usize = 98;
/// A session that nobody comes back to ends after this: 7 days, in milliseconds. Its history is kept as long.
pub const SESSION_MS: u64 = 7 * DAY_MS;
/// And however often somebody comes back, this long after it began: 30 days, in milliseconds.
pub const SESSION_MAX_MS: u64 = 30 * DAY_MS;
/// A token that is older than this is renewed: one day, in milliseconds.
pub const RENEW_AFTER_MS: u64 = DAY_MS;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The first byte of a token: its form, and with which cipher it is sealed.
const VERSION: u8 = 1;
/// What the key seals beside tokens of this form, it seals for another purpose; neither opens as the other.
const PURPOSE: [u8; 17] = *b"carillon session\x01";
const NONCE_BYTES: usize = 24;
const PLAIN_BYTES: usize = 16 + 8 + 8;
const TAG_BYTES: usize = 16;
const RAW_BYTES: usize = 1 + NONCE_BYTES + PLAIN_BYTES + TAG_BYTES;
/// How old a session was when its token was made is kept in minutes, in the upper bits of that moment, which are zero until
/// the year 10889. The release before this one left them zero, for a session that begins with its token; and reads
/// what they say now as a moment to come, and opens the token until it expires.
const AGE_SHIFT: u32 = 48;
const MINUTE_MS: u64 = 60_000;
const _: () = assert!(SESSION_MAX_MS / MINUTE_MS < 1 << (u64::BITS - AGE_SHIFT));
const _: () = assert!(PURPOSE[16] == VERSION && TOKEN_BYTES == (RAW_BYTES * 8).div_ceil(6));

/// Names a session: 128 random bits, written as 32 hexadecimal digits. It may be known to others; only
/// the token opens the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u128);

impl std::str::FromStr for SessionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = u128::from_str_radix(text, 16).map(Self).map_err(drop)?;
        // One id has one text.
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}

/// Names a key and tells nothing else of it: 16 hexadecimal digits of its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The name of a key.
    #[must_use]
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

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Which session it is.
    pub id: SessionId,
    /// When it began, in milliseconds since 1970, to the minute.
    pub began_at_ms: u64,
    /// When this token was made, in milliseconds since 1970.
    pub issued_at_ms: u64,
    /// From when on it opens nothing, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

impl Session {
    /// A new session, as of `now_ms` since 1970.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new(now_ms: u64) -> Result<Self, RandomError> {
        let id = SessionId(u128::from_be_bytes(random()?));
        let expires_at_ms = now_ms.saturating_add(SESSION_MS);
        Ok(Self { id, began_at_ms: now_ms, issued_at_ms: now_ms, expires_at_ms })
    }

    /// The same session for a further [`SESSION_MS`], once its token is older than [`RENEW_AFTER_MS`]; never beyond
    /// [`SESSION_MAX_MS`].
    #[must_use]
    pub fn renewed(&self, now_ms: u64) -> Option<Self> {
        let is_old = now_ms.saturating_sub(self.issued_at_ms) > RENEW_AFTER_MS;
        let end_ms = self.began_at_ms.saturating_add(SESSION_MAX_MS);
        let expires_at_ms = now_ms.saturating_add(SESSION_MS).min(end_ms);
        is_old.then_some(Self { issued_at_ms: now_ms, expires_at_ms, ..*self })
    }

    fn to_bytes(self) -> [u8; PLAIN_BYTES] {
        let mut plain = [0; PLAIN_BYTES];
        plain[..16].copy_from_slice(&self.id.0.to_be_bytes());
        // Rounded up: a session ends a minute too early rather than too late.
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

/// Why a text opens no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It does not look like a token.
    #[error("this text is not a session token of this service: ask for a new one with session=new")]
    Malformed,
    /// It is of a form that this version does not know.
    #[error("this text is not a session token of this service: ask for a new one with session=new")]
    OtherVersion,
    /// No key of ours made it, or it was changed.
    #[error("this text is not a session token of this service: ask for a new one with session=new")]
    Forged,
    /// It was ours, and its time is over.
    #[error("the session is over: ask for a new one with session=new")]
    Expired,
}

impl SealError {
    /// A word for metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::OtherVersion => "other_version",
            Self::Forged => "forged",
            Self::Expired => "expired",
        }
    }
}

/// Makes and opens session tokens with XChaCha20-Poly1305.
#[derive(Clone)]
pub struct Sealer {
    seals: (KeyId, XChaCha20Poly1305),
    /// Keys that sealed before and still open.
    older: Vec<(KeyId, XChaCha20Poly1305)>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({} keys hidden)", 1 + self.older.len())
    }
}

impl Sealer {
    /// Seals with `key`, and opens what it or one of the `older` keys has sealed.
    #[must_use]
    pub fn new(key: &[u8; KEY_BYTES], older: &[[u8; KEY_BYTES]]) -> Self {
        let cipher = |key: &[u8; KEY_BYTES]| (KeyId::of(key), XChaCha20Poly1305::new(key.into()));
        Self { seals: cipher(key), older: older.iter().map(cipher).collect() }
    }

    /// The key that seals.
    #[must_use]
    pub fn key(&self) -> &KeyId {
        &self.seals.0
    }

    /// A key for [`Sealer::new`].
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new_key() -> Result<[u8; KEY_BYTES], RandomError> {
        random()
    }

    /// The token of a session. Each call gives another.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn seal(&self, session: &Session) -> Result<String, RandomError> {
        // 24 random bytes never meet again by chance, however many tokens one key seals.
        let nonce: [u8; NONCE_BYTES] = random()?;
        let payload = Payload { msg: &session.to_bytes(), aad: &PURPOSE };
        // It fails for texts of 256 GiB.
        let sealed =
            self.seals.1.encrypt(&XNonce::from(nonce), payload).map_err(|_| RandomError::UNEXPECTED)?;
        Ok(URL_SAFE_NO_PAD.encode([&[VERSION], nonce.as_slice(), &sealed].concat()))
    }

    /// The session that a token opens at `now_ms` since 1970.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn open(&self, token: &str, now_ms: u64) -> Result<Session, SealError> {
        self.open_by(token, now_ms).map(|(session, _)| session)
    }

    /// The same, with the key that has sealed it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
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
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW_MS: u64 = 1_795_247_100_123;
    /// 0 to 31
    const KEY: [u8; KEY_BYTES] = {
        let mut key = [0; KEY_BYTES];
        let mut at = 0;
        while at < KEY_BYTES {
            key[at] = at as u8;
            at += 1;
        }
        key
    };
    /// Sealed under `KEY` by another program, written in Python from the draft of XChaCha20-Poly1305.
    const TOKEN: &str =
        "AWRlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3xi24O7e-_1D6k3hGqyUzZbu1PQGTwaa4xVZQUKQyzLYfOlRajPb5TH5gMquI2RmA";
    /// The same with 2 for the version, sealed as such.
    const TOKEN_OF_2: &str =
        "AmRlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3xi24O7e-_1D6k3hGqyUzZbu1PQGTwaa4xVZQUKQyzLsWYng6fiExPgf3hWrnV8IQ";

    fn sealer() -> Sealer {
        Sealer::new(&KEY, &[])
    }

    #[test]
    fn opens_what_another_program_sealed() {
        let session = sealer().open(TOKEN, NOW_MS).unwrap();
        assert_eq!(session.id.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!((session.issued_at_ms, session.expires_at_ms), (NOW_MS, NOW_MS + 604_800_000));
    }

    #[test]
    fn opens_what_it_sealed_and_each_token_is_as_long_and_unlike_the_others() {
        let session = Session::new(NOW_MS).unwrap();
        let tokens: HashSet<_> = (0..1_000).map(|_| sealer().seal(&session).unwrap()).collect();
        assert_eq!(tokens.len(), 1_000);
        for token in tokens {
            assert_eq!(token.len(), TOKEN_BYTES);
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            assert_eq!(sealer().open(&token, NOW_MS), Ok(session));
        }
        for ms in [0, (1 << AGE_SHIFT) - 1] {
            let session = Session::new(ms).unwrap();
            let token = sealer().seal(&session).unwrap();
            assert_eq!((token.len(), sealer().open(&token, ms)), (TOKEN_BYTES, Ok(session)));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let raw = URL_SAFE_NO_PAD.decode(TOKEN).unwrap();
        for bit in 0..raw.len() * 8 {
            let mut changed = raw.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 8 { SealError::OtherVersion } else { SealError::Forged };
            assert_eq!(sealer().open(&URL_SAFE_NO_PAD.encode(changed), NOW_MS), Err(expected), "bit {bit}");
        }
        // And of its text, whose last two bits carry nothing: one session has one text.
        for bit in 0..TOKEN_BYTES * 8 {
            let mut changed = TOKEN.as_bytes().to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let refused = String::from_utf8(changed).is_ok_and(|text| sealer().open(&text, NOW_MS).is_ok());
            assert!(!refused, "bit {bit}");
        }
    }

    #[test]
    fn what_is_cut_longer_or_of_another_version_is_refused() {
        for len in 0..TOKEN_BYTES {
            assert_eq!(sealer().open(&TOKEN[..len], NOW_MS), Err(SealError::Malformed));
            assert_eq!(sealer().open(&TOKEN[TOKEN_BYTES - len..], NOW_MS), Err(SealError::Malformed));
        }
        for text in [format!("{TOKEN}A"), format!("{TOKEN}=="), format!(" {}", &TOKEN[1..]), "é".repeat(49)]
        {
            assert_eq!(sealer().open(&text, NOW_MS), Err(SealError::Malformed), "{text}");
        }
        assert_eq!(sealer().open(TOKEN_OF_2, NOW_MS), Err(SealError::OtherVersion));
        // Nor does the version's byte alone make it one of ours: it is sealed in.
        let as_1 = format!("AW{}", &TOKEN_OF_2[2..]);
        assert_eq!(sealer().open(&as_1, NOW_MS), Err(SealError::Forged));
    }

    #[test]
    fn random_texts_of_the_right_form_are_refused() {
        for _ in 0..10_000 {
            let raw: Vec<u8> =
                (0..RAW_BYTES).map(|at| if at == 0 { VERSION } else { fastrand::u8(..) }).collect();
            assert_eq!(sealer().open(&URL_SAFE_NO_PAD.encode(raw), NOW_MS), Err(SealError::Forged));
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let newer = Sealer::new_key().unwrap();
        let rotated = Sealer::new(&newer, &[[9; KEY_BYTES], KEY]);
        let session = rotated.open(TOKEN, NOW_MS).unwrap();
        let token = rotated.seal(&session).unwrap();
        assert_eq!(Sealer::new(&newer, &[]).open(&token, NOW_MS), Ok(session));
        assert_eq!(sealer().open(&token, NOW_MS), Err(SealError::Forged));
        assert_eq!(Sealer::new(&newer, &[]).open(TOKEN, NOW_MS), Err(SealError::Forged));
    }

    #[test]
    fn a_token_opens_until_it_expires() {
        let end = NOW_MS + SESSION_MS;
        assert!(sealer().open(TOKEN, end - 1).is_ok());
        assert_eq!(sealer().open(TOKEN, end), Err(SealError::Expired));
        assert_eq!(sealer().open(TOKEN, u64::MAX), Err(SealError::Expired));
        // A replica whose clock is behind opens it too.
        assert!(sealer().open(TOKEN, 0).is_ok());
    }

    #[test]
    fn a_token_is_renewed_when_it_is_older_than_a_day() {
        let session = sealer().open(TOKEN, NOW_MS).unwrap();
        assert_eq!(session.renewed(NOW_MS + RENEW_AFTER_MS), None);
        assert_eq!(session.renewed(0), None);
        let later = NOW_MS + RENEW_AFTER_MS + 1;
        let renewed = session.renewed(later).unwrap();
        assert_eq!(renewed, Session { issued_at_ms: later, expires_at_ms: later + SESSION_MS, ..session });
    }

    #[test]
    fn a_session_ends_thirty_days_after_it_began_however_often_it_is_renewed() {
        // Of the release before, whose tokens do not say when their session began.
        let mut session = sealer().open(TOKEN, NOW_MS).unwrap();
        assert_eq!(session.began_at_ms, NOW_MS);
        let mut now_ms = NOW_MS;
        while let Ok(opened) = sealer().open(&sealer().seal(&session).unwrap(), now_ms) {
            assert!(opened.began_at_ms <= NOW_MS && opened.expires_at_ms <= NOW_MS + SESSION_MAX_MS);
            now_ms += RENEW_AFTER_MS + 1_234_567;
            session = opened.renewed(now_ms).unwrap();
        }
        let lasted_ms = session.expires_at_ms - NOW_MS;
        assert!((SESSION_MAX_MS - 30 * MINUTE_MS..=SESSION_MAX_MS).contains(&lasted_ms), "{lasted_ms}");
        // The release before opens them as well: what it reads as the moment of issue is not over.
        let issued = u64::from_be_bytes(session.to_bytes()[16..24].try_into().unwrap());
        assert!(issued > now_ms && session.to_bytes()[24..] == session.expires_at_ms.to_be_bytes());
    }

    #[test]
    fn an_id_and_a_key_have_one_name() {
        let id = "00112233445566778899aabbccddeeff";
        assert_eq!(id.parse::<SessionId>().unwrap().to_string(), id);
        for wrong in ["", "0", "+0112233445566778899aabbccddeeff", &id.to_uppercase(), &format!("0{id}")] {
            assert_eq!(wrong.parse::<SessionId>(), Err(()), "{wrong}");
        }
        assert_eq!(KeyId::of(&KEY).to_string(), "630dcd2966c43366");
        let opened = Sealer::new(&[9; KEY_BYTES], &[KEY]);
        assert_eq!(opened.open_by(TOKEN, NOW_MS).unwrap().1, &KeyId::of(&KEY));
    }

    #[test]
    fn ids_never_repeat() {
        let ids: HashSet<_> = (0..100_000).map(|_| Session::new(NOW_MS).unwrap().id).collect();
        assert_eq!(ids.len(), 100_000);
        // Nor do they share any half: all 128 bits are random.
        for half in [0, 64] {
            let halves: HashSet<_> = ids.iter().map(|id| (id.0 >> half) as u64).collect();
            assert_eq!(halves.len(), 100_000);
        }
    }

    #[test]
    fn keys_are_never_shown() {
        assert_eq!(format!("{:?}", Sealer::new(&KEY, &[KEY])), "Sealer(2 keys hidden)");
    }
}
