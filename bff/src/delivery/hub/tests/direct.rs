use std::slice::from_ref;

use carillon_broker::{EntryKind, Stored};
use futures_util::FutureExt;

use super::{at, caught_up, cursor, fanout, hub, join, join_at, subscribed, take, topic};
use crate::delivery::hub::direct::DIRECT_MAX_FRAMES;
use crate::delivery::hub::*;

fn direct(text: &str) -> Direct {
    Direct::Raw { payload: text.to_owned().into(), frame: text.to_owned().into() }
}

/// Returns the frames outside of the sequence that a reader takes.
fn take_direct(hub: &Hub, id: ReaderId) -> Vec<String> {
    match hub.next(id) {
        Next::Direct(frames, cursor) => frames.iter().map(|one| one.frame(&cursor).to_string()).collect(),
        Next::Wait => vec![],
        other => panic!("{other:?} was not expected"),
    }
}

#[test]
fn a_direct_frame_reaches_readers_even_while_they_are_behind() {
    let (hub, ann, ben) = (hub(), Audience::User("ann".into()), Audience::User("ben".into()));
    let notify = Arc::default();
    let (one, _) = join_at(&hub, from_ref(&ann), &notify);
    let (two, _) = join(&hub, from_ref(&ann));
    let (other, _) = join(&hub, &[ben]);
    assert_eq!(hub.send_direct(&ann, &direct("first")), 2);
    assert!(notify.notified().now_or_never().is_some(), "the reader was not woken");
    assert_eq!(take_direct(&hub, one), ["first"]);
    assert_eq!(take_direct(&hub, two), ["first"]);
    assert_eq!(take_direct(&hub, other), [""; 0]);
    assert_eq!(take_direct(&hub, one), [""; 0], "taken once");
    hub.leave(two);
    assert_eq!(hub.send_direct(&ann, &direct("third")), 1);
}

#[test]
fn a_reader_whose_mailbox_is_full_is_closed_as_slow() {
    let (hub, ann) = (hub(), Audience::User("ann".into()));
    let (id, _) = join(&hub, from_ref(&ann));
    for _ in 0..DIRECT_MAX_FRAMES {
        hub.send_direct(&ann, &direct("x"));
    }
    assert_eq!(take_direct(&hub, id).len(), DIRECT_MAX_FRAMES);
    for _ in 0..=DIRECT_MAX_FRAMES {
        hub.send_direct(&ann, &direct("x"));
    }
    assert!(matches!(hub.next(id), Next::Close(CloseCode::SLOW)));
}

#[test]
fn readers_are_closed_by_their_credential() {
    let (hub, ann) = (hub(), Audience::User("ann".into()));
    let issued =
        |issued_at_s| Arc::new(Credential { user: Some("ann".into()), issued_at_s, ..Credential::default() });
    let ((old, _), (new, _), (nobody, _)) =
        (join(&hub, from_ref(&ann)), join(&hub, &[ann]), join(&hub, &[Audience::Everyone]));
    hub.set_credential(old, issued(10));
    hub.set_credential(new, issued(11));
    assert_eq!(hub.close_readers(|credential| credential.issued_at_s <= 10), 1);
    assert!(matches!(hub.next(old), Next::Close(CloseCode::REFUSED)));
    assert!(matches!(hub.next(new), Next::Wait));
    assert!(matches!(hub.next(nobody), Next::Wait));
}

#[test]
fn an_entry_for_a_connection_reaches_the_one_reader_that_it_names() {
    let hub = hub();
    let ((id, _), (other, _)) = (join(&hub, &[Audience::Everyone]), join(&hub, &[Audience::Everyone]));
    subscribed(&hub, &[Audience::Everyone], "e", 10);
    caught_up(&hub, id, "e", 10);
    caught_up(&hub, other, "e", 10);
    let name = connection_id("bff-1-00beef", id);
    let stored = Stored {
        position: at(20),
        prev: Position::ZERO,
        kind: EntryKind::Notification,
        raw: format!(
            r#"{{"id":"a","body":"b","created_at":"2026-11-21T07:45:00Z","to":{{"connection":"{name}"}}}}"#
        )
        .into_bytes(),
    };
    hub.fanout(&Fanout {
        audience: Audience::Connection("bff-1-00beef".into()),
        epoch: "e".into(),
        claimed_by: "bff-2".into(),
        entries: vec![stored],
    });
    let frames = take_direct(&hub, id);
    assert!(
        frames[0].starts_with(r#"{"type":"notification","cursor":"e.10-0","claimed_by":"bff-2""#),
        "{frames:?}"
    );
    assert_eq!(take_direct(&hub, other), [""; 0]);
    assert_eq!(cursor(&hub, id), "e.20-0", "everything up to here was received");
}

#[test]
fn a_reader_may_subscribe_and_unsubscribe_in_mid_stream() {
    let (hub, news) = (hub(), topic("news"));
    let (id, _) = join(&hub, &[Audience::Everyone]);
    subscribed(&hub, &[Audience::Everyone], "e", 10);
    caught_up(&hub, id, "e", 10);
    hub.fanout(&fanout(&Audience::Everyone, "e", &[(12, 0)]));
    assert_eq!(take(&hub, id), Ok(vec![12]));
    assert!(hub.subscribe(id, &news));
    assert!(!hub.subscribe(id, &news), "the reader has it");
    assert_eq!(take(&hub, id), Ok(vec![]), "nothing before its subscription is confirmed");
    subscribed(&hub, from_ref(&news), "e", 15);
    assert_eq!(take(&hub, id), Err(12), "entries of the meantime are in history");
    caught_up(&hub, id, "e", 15);
    hub.fanout(&fanout(&news, "e", &[(16, 0)]));
    assert_eq!(take(&hub, id), Ok(vec![16]));
    assert!(hub.unsubscribe(id, &news));
    assert!(!hub.unsubscribe(id, &news), "the reader does not have it any more");
    hub.fanout(&fanout(&news, "e", &[(17, 16)]));
    hub.fanout(&fanout(&Audience::Everyone, "e", &[(18, 12)]));
    assert_eq!(take(&hub, id), Ok(vec![18]));
}

#[test]
fn each_change_of_a_user_s_readers_is_returned_once() {
    let (hub, ann) = (hub(), Audience::User("ann".into()));
    let ((one, _), _) = (join(&hub, from_ref(&ann)), join(&hub, from_ref(&ann)));
    assert_eq!(hub.users_changed(), [("ann".to_owned(), 2)]);
    assert_eq!(hub.users_changed(), []);
    hub.leave(one);
    assert_eq!(hub.users_changed(), [("ann".to_owned(), 1)]);
    assert_eq!(hub.users(), [("ann".to_owned(), 1)]);
}
