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
/// Sealed with `KEY` by another program, written in Python from the draft of XChaCha20-Poly1305.
const TOKEN: &str =
    "AWRlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3xi24O7e-_1D6k3hGqyUzZbu1PQGTwaa4xVZQUKQyzLYfOlRajPb5TH5gMquI2RmA";
/// The same with version 2, sealed as such.
const TOKEN_OF_2: &str =
    "AmRlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3xi24O7e-_1D6k3hGqyUzZbu1PQGTwaa4xVZQUKQyzLsWYng6fiExPgf3hWrnV8IQ";

fn sealer() -> Sealer {
    Sealer::new(&KEY, &[])
}

#[test]
fn opens_a_token_of_another_program() {
    let session = sealer().open(TOKEN, NOW_MS).unwrap();
    assert_eq!(session.id.to_string(), "00112233445566778899aabbccddeeff");
    assert_eq!((session.issued_at_ms, session.expires_at_ms), (NOW_MS, NOW_MS + 604_800_000));
}

#[test]
fn opens_its_tokens_which_differ_and_have_one_length() {
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
    // The same holds for its text, whose last two bits are unused: each session has only one text.
    for bit in 0..TOKEN_BYTES * 8 {
        let mut changed = TOKEN.as_bytes().to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let refused = String::from_utf8(changed).is_ok_and(|text| sealer().open(&text, NOW_MS).is_ok());
        assert!(!refused, "bit {bit}");
    }
}

#[test]
fn a_token_of_another_length_or_version_is_refused() {
    for len in 0..TOKEN_BYTES {
        assert_eq!(sealer().open(&TOKEN[..len], NOW_MS), Err(SealError::Malformed));
        assert_eq!(sealer().open(&TOKEN[TOKEN_BYTES - len..], NOW_MS), Err(SealError::Malformed));
    }
    for text in [format!("{TOKEN}A"), format!("{TOKEN}=="), format!(" {}", &TOKEN[1..]), "é".repeat(49)] {
        assert_eq!(sealer().open(&text, NOW_MS), Err(SealError::Malformed), "{text}");
    }
    assert_eq!(sealer().open(TOKEN_OF_2, NOW_MS), Err(SealError::OtherVersion));
    // Changing the version byte does not help: it is authenticated.
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
    // A replica with a slow clock opens it too.
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
    // A token of the release before, without the start of its session.
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
    // The release before opens them as well: the time that it reads as their creation is in the future.
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
    // They do not share any half either: all 128 bits are random.
    for half in [0, 64] {
        let halves: HashSet<_> = ids.iter().map(|id| (id.0 >> half) as u64).collect();
        assert_eq!(halves.len(), 100_000);
    }
}

#[test]
fn keys_are_never_shown() {
    assert_eq!(format!("{:?}", Sealer::new(&KEY, &[KEY])), "Sealer(2 keys hidden)");
}
