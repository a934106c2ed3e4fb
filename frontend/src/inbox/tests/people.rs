use carillon_protocol::limits::ACK_AFTER_MS;
use carillon_protocol::sent::Send;
use carillon_protocol::{Audience, ClientMessage, Notification, Resume, Status};

use super::super::{Event, LEAVE_MS, LIST_MAX_ROWS, Message, Past, READ_AFTER_MS, Row, SENT_MAX_MESSAGES};
use super::Page;

/// A page with a signed-in user.
fn signed_in() -> Page {
    let mut page = Page::default();
    page.apply(Event::Began(Some("anna".to_owned()))).fill(vec![], None).welcome(Resume::Complete, None);
    page
}

fn from(sender: &str) -> impl FnOnce(&mut Notification) {
    move |one| {
        one.from = Some(sender.to_owned());
        one.to = Audience::User("anna".to_owned());
    }
}

fn send(page: &mut Page, id: &str) {
    page.apply(Event::Send { id: id.to_owned(), to: "bob".to_owned(), text: format!("text of {id}") });
}

fn status(page: &mut Page, id: &str, status: Status) {
    page.apply(Event::Status { id: id.to_owned(), status });
}

fn message(page: &Page, id: &str) -> Message {
    let shown = page.inbox.rows().shown().find_map(|row| match row {
        Row::Sent(message) if message.id == id => Some((**message).clone()),
        _ => None,
    });
    shown.unwrap_or_else(|| panic!("no row of {id}"))
}

const SEND_A: &str = r#"{"type":"send","notification":{"id":"a","to":{"user":"bob"},"body":"text of a"}}"#;

#[test]
fn a_message_is_in_the_list_at_once_and_its_ticks_only_rise() {
    let mut page = signed_in();
    send(&mut page, "a");
    assert_eq!((page.frames(), page.rows(), page.toasts()), (vec![SEND_A.into()], vec!["a".into()], vec![]));
    assert!(message(&page, "a").waits());
    let ticks = [
        (Status::None, Status::None),
        (Status::Delivered, Status::Delivered),
        (Status::Sent, Status::Delivered),
        (Status::Read, Status::Read),
        (Status::Delivered, Status::Read),
    ];
    for (status_received, shown) in ticks {
        status(&mut page, "a", status_received);
        assert_eq!(message(&page, "a").status, Some(shown), "after {status_received:?}");
    }
    status(&mut page, "of another device", Status::Read);
    assert_eq!((page.rows().len(), page.inbox.unread()), (1, 0), "what one writes is not unread");
}

#[test]
fn an_unconfirmed_message_is_sent_again_with_the_same_id() {
    let mut page = signed_in();
    send(&mut page, "a");
    send(&mut page, "b");
    assert_eq!(page.frames().len(), 2);
    status(&mut page, "b", Status::None);
    page.apply(Event::Lost);
    send(&mut page, "c");
    assert_eq!(page.frames(), [""; 0], "there is no connection");
    page.welcome(Resume::Complete, None);
    let frames = page.frames();
    assert_eq!(frames[0], SEND_A);
    assert!(frames.len() == 2 && frames[1].contains(r#""id":"c""#), "{frames:?}");
    page.apply(Event::Lost).welcome(Resume::Complete, None);
    assert_eq!(page.frames().len(), 2, "still not confirmed");
}

#[test]
fn a_refused_message_shows_why_and_can_be_sent_again() {
    let refuse = |page: &mut Page, id: &str| {
        page.apply(Event::Refused { id: id.to_owned(), why: "too many".to_owned() });
    };
    let mut page = signed_in();
    send(&mut page, "a");
    page.frames();
    refuse(&mut page, "a");
    assert_eq!(message(&page, "a").failed.as_deref(), Some("too many"));
    page.apply(Event::Lost).welcome(Resume::Complete, None);
    assert_eq!(page.frames(), [""; 0], "not without being asked");
    let slot = message(&page, "a").slot;
    page.apply(Event::Retry(slot));
    assert_eq!((page.frames(), message(&page, "a").waits()), (vec![SEND_A.into()], true));
    status(&mut page, "a", Status::Sent);
    refuse(&mut page, "a");
    assert_eq!(message(&page, "a").failed, None, "it was taken before");
    refuse(&mut page, "of another page");
    assert_eq!(page.rows(), ["a"]);
}

#[test]
fn only_so_many_messages_are_followed() {
    let mut page = signed_in();
    for n in 0..=SENT_MAX_MESSAGES {
        send(&mut page, &n.to_string());
    }
    status(&mut page, "0", Status::Read);
    status(&mut page, "1", Status::Read);
    assert_eq!((message(&page, "0").status, message(&page, "1").status), (None, Some(Status::Read)));
}

#[test]
fn messages_are_acknowledged_together_and_again_after_a_break() {
    let mut page = signed_in();
    page.came("news").came_with("1", from("bob")).came_with("2", from("carl"));
    assert_eq!(page.frames(), [""; 0]);
    page.after(ACK_AFTER_MS);
    let ack = r#"{"type":"ack","ids":[{"from":"bob","id":"1"},{"from":"carl","id":"2"}]}"#;
    assert_eq!(page.frames(), [ack]);
    page.apply(Event::Lost).welcome(Resume::Complete, None).after(ACK_AFTER_MS);
    assert_eq!(page.frames(), [ack]);
    page.apply(Event::Lost).came_with("3", from("bob")).after(60_000).after(LEAVE_MS);
    assert_eq!((page.frames(), page.inbox.wake_at_ms()), (vec![], None), "there is no connection");
    page.welcome(Resume::Complete, None);
    assert_eq!(page.frames(), [r#"{"type":"ack","ids":[{"from":"bob","id":"3"}]}"#]);
}

#[test]
fn unread_is_what_the_list_holds_after_the_read_position() {
    let mut page = signed_in();
    page.came("news").came_with("1", from("bob")).came_with("2", from("bob")).after(ACK_AFTER_MS);
    page.frames();
    assert_eq!(page.inbox.unread(), 3);
    page.apply(Event::Read("e.2-0".to_owned()));
    assert_eq!(page.inbox.unread(), 1, "read on another device");
    page.apply(Event::Read("e.1-0".to_owned()));
    assert_eq!(page.inbox.unread(), 1, "it never goes back");
    page.apply(Event::Away(true)).came("3");
    assert_eq!(page.inbox.unread(), 2, "also what waits above the reader");
    page.apply(Event::ReadAll);
    assert_eq!(
        (page.inbox.unread(), page.frames()),
        (0, vec![r#"{"type":"read","cursor":"e.4-0","ids":[{"from":"bob","id":"2"}]}"#.into()])
    );
    page.apply(Event::ReadAll);
    assert_eq!(page.frames(), [""; 0]);
}

#[test]
fn visible_items_are_read() {
    let mut page = signed_in();
    page.came_with("1", from("bob")).apply(Event::Visible(true)).apply(Event::Away(true)).after(60_000);
    page.frames();
    assert_eq!(page.inbox.unread(), 1, "the user has scrolled down");
    page.apply(Event::Away(false)).after(READ_AFTER_MS - 1);
    assert_eq!((page.inbox.unread(), page.frames()), (1, vec![]));
    page.after(1);
    assert_eq!(
        (page.inbox.unread(), page.frames()),
        (0, vec![r#"{"type":"read","cursor":"e.1-0","ids":[{"from":"bob","id":"1"}]}"#.into()])
    );
    page.apply(Event::Lost).welcome(Resume::Complete, None);
    assert_eq!(page.frames().len(), 1, "the server has not confirmed it");
    page.apply(Event::Lost).welcome(Resume::Complete, Some("e.1-0"));
    assert_eq!(page.frames(), [""; 0]);
}

#[test]
fn an_anonymous_reader_has_a_read_position_in_the_page_only() {
    let mut page = Page { position: 7, ..Page::default() };
    page.welcome(Resume::None, None).came("1").came("2");
    assert_eq!((page.inbox.unread(), page.inbox.since().as_deref()), (2, Some("e.7-0")));
    page.apply(Event::Visible(true)).after(READ_AFTER_MS);
    assert_eq!((page.inbox.unread(), page.frames()), (0, vec![]));
}

#[test]
fn missed_notifications_are_listed_once_in_order_without_toasts() {
    let mut page = Page { ms: 10_000, ..Page::default() };
    page.came("of nobody").apply(Event::Began(Some("anna".to_owned())));
    assert!(page.rows().is_empty() && page.toasts().is_empty(), "another reader's");
    let items =
        vec![page.delivery("1", |_| {}), page.delivery("2", from("bob")), page.delivery("3", from("bob"))];
    page.fill(items, Some("e.3-0")).welcome(Resume::Complete, Some("e.3-0"));
    assert_eq!((page.rows(), page.toasts()), (["3", "2", "1"].map(String::from).into(), vec![]));
    assert_eq!((page.inbox.unread(), page.inbox.race().total()), (1, 3));
    page.after(ACK_AFTER_MS);
    assert_eq!(
        page.frames(),
        [r#"{"type":"ack","ids":[{"from":"bob","id":"3"}]}"#],
        "a read message was acknowledged earlier"
    );
    page.came("4");
    assert_eq!((page.rows()[0].as_str(), page.toasts()), ("4", vec!["4".into()]));
}

#[test]
fn a_reloaded_page_shows_the_same() {
    let mut page = signed_in();
    page.after(1_000).came("1").after(1_000);
    send(&mut page, "a");
    page.after(1_000).came("2");
    assert_eq!(page.inbox.since(), None, "all of history");
    let sent = page.inbox.sent().messages().map(|message| (**message).clone()).collect();
    let rows = page.rows();

    let mut again = Page { ms: 1_000, ..Page::default() };
    again.apply(Event::Began(Some("anna".to_owned())));
    let one = again.delivery("1", |_| {});
    again.ms = 3_000;
    let items = vec![one, again.delivery("2", |_| {})];
    let next = "e.2-0".to_owned();
    again.apply(Event::Filled(Past { items, sent, next, ..Past::default() }));
    assert_eq!((again.rows(), again.inbox.since().as_deref()), (rows, None));
    again.welcome(Resume::Complete, None);
    assert_eq!(again.frames(), [SEND_A], "it was not confirmed");
    again.many(LIST_MAX_ROWS);
    assert_eq!(again.inbox.since().as_deref(), Some("e.2-0"), "after the newest that is forgotten");
}

#[test]
fn a_message_is_a_valid_notification_for_any_text() {
    let mut page = signed_in();
    let text = "\u{1}\"\\ \n\u{2028}é 🎉 </script>";
    page.apply(Event::Send { id: "a".into(), to: "\"bob\"".into(), text: text.into() });
    let frame = page.inbox.take_frames().remove(0);
    let ClientMessage::Send(Send { notification }) = frame else { panic!("{frame:?}") };
    let read = Notification::check(notification.get()).unwrap();
    assert_eq!((read.body.as_str(), read.to), (text, Audience::User("\"bob\"".into())));
}

#[test]
fn a_message_to_oneself_is_shown_once() {
    let mut page = signed_in();
    page.apply(Event::Send { id: "a".into(), to: "anna".into(), text: "note".into() });
    page.came_with("a", from("anna"));
    assert_eq!(page.rows(), ["a"]);
}
