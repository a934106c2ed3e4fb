use std::slice::from_ref;

use carillon_broker::{EntryKind, Stored};
use futures_util::FutureExt;

use super::{at, caught_up, cursor, fanout, hub, join, join_at, subscribed, take, topic};
use crate::delivery::hub::direct::DIRECT_MAX_FRAMES;
use crate::delivery::hub::*;

fn direct(text: &str) -> Direct {
    Direct::Raw { payload: text.to_owned().into(), frame: text.to_owned().into() }
}

/// The frames outside of the sequence that a reader takes.
fn take_direct(hub: &Hub, id: ReaderId) -> Vec<String> {
    match hub.take(id) {
        Take::Direct(frames, cursor) => frames.iter().map(|one| one.frame(&cursor).to_string()).collect(),
        Take::Wait => vec![],
        other => panic!("{other:?} was not expected"),
    }
}

#[test]
fn what_is_told_to_an_audience_reaches_its_readers_even_while_they_are_behind() {
    let (hub, ann, ben) = (hub(), Audience::User("ann".into()), Audience::User("ben".into()));
    let notify = Arc::default();
    let (one, _) = join_at(&hub, from_ref(&ann), &notify);
    let (two, _) = join(&hub, from_ref(&ann));
    let (other, _) = join(&hub, &[ben]);
    assert_eq!(hub.post(&ann, &direct("first")), 2);
    assert!(notify.notified().now_or_never().is_some(), "the reader was not woken");
    assert_eq!(take_direct(&hub, one), ["first"]);
    assert_eq!(take_direct(&hub, two), ["first"]);
    assert_eq!(take_direct(&hub, other), [""; 0]);
    assert_eq!(take_direct(&hub, one), [""; 0], "taken once");
    hub.leave(two);
    assert_eq!(hub.post(&ann, &direct("third")), 1);
}

#[test]
fn a_reader_that_leaves_too_much_lying_is_closed_as_slow() {
    let (hub, ann) = (hub(), Audience::User("ann".into()));
    let (id, _) = join(&hub, from_ref(&ann));
    for _ in 0..DIRECT_MAX_FRAMES {
        hub.post(&ann, &direct("x"));
    }
    assert_eq!(take_direct(&hub, id).len(), DIRECT_MAX_FRAMES);
    for _ in 0..=DIRECT_MAX_FRAMES {
        hub.post(&ann, &direct("x"));
    }
    assert!(matches!(hub.take(id), Take::Close(CloseCode::SLOW)));
}

#[test]
fn readers_are_shut_out_by_what_they_were_let_in_with() {
    let (hub, ann) = (hub(), Audience::User("ann".into()));
    let issued =
        |issued_at_s| Arc::new(Credential { user: Some("ann".into()), issued_at_s, ..Credential::default() });
    let ((old, _), (new, _), (nobody, _)) =
        (join(&hub, from_ref(&ann)), join(&hub, &[ann]), join(&hub, &[Audience::Everyone]));
    hub.admit(old, issued(10));
    hub.admit(new, issued(11));
    assert_eq!(hub.shut_out(|credential| credential.issued_at_s <= 10), 1);
    assert!(matches!(hub.take(old), Take::Close(CloseCode::REFUSED)));
    assert!(matches!(hub.take(new), Take::Wait));
    assert!(matches!(hub.take(nobody), Take::Wait));
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
    assert_eq!(cursor(&hub, id), "e.20-0", "everything up to here was heard");
}

#[test]
fn a_reader_may_take_up_an_audience_and_leave_it_in_mid_stream() {
    let (hub, news) = (hub(), topic("news"));
    let (id, _) = join(&hub, &[Audience::Everyone]);
    subscribed(&hub, &[Audience::Everyone], "e", 10);
    caught_up(&hub, id, "e", 10);
    hub.fanout(&fanout(&Audience::Everyone, "e", &[(12, 0)]));
    assert_eq!(take(&hub, id), Ok(vec![12]));
    assert!(hub.subscribe(id, &news));
    assert!(!hub.subscribe(id, &news), "it has it");
    assert_eq!(take(&hub, id), Ok(vec![]), "nothing until it is heard");
    subscribed(&hub, from_ref(&news), "e", 15);
    assert_eq!(take(&hub, id), Err(12), "what came meanwhile is in history");
    caught_up(&hub, id, "e", 15);
    hub.fanout(&fanout(&news, "e", &[(16, 0)]));
    assert_eq!(take(&hub, id), Ok(vec![16]));
    assert!(hub.unsubscribe(id, &news));
    assert!(!hub.unsubscribe(id, &news), "it has it no more");
    hub.fanout(&fanout(&news, "e", &[(17, 16)]));
    hub.fanout(&fanout(&Audience::Everyone, "e", &[(18, 12)]));
    assert_eq!(take(&hub, id), Ok(vec![18]));
}

#[test]
fn users_that_came_or_went_are_told_once() {
    let (hub, ann) = (hub(), Audience::User("ann".into()));
    let ((one, _), _) = (join(&hub, from_ref(&ann)), join(&hub, from_ref(&ann)));
    assert_eq!(hub.users_changed(), [("ann".to_owned(), 2)]);
    assert_eq!(hub.users_changed(), []);
    hub.leave(one);
    assert_eq!(hub.users_changed(), [("ann".to_owned(), 1)]);
    assert_eq!(hub.users(), [("ann".to_owned(), 1)]);
}
