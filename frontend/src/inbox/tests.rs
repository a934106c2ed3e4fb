mod jobs;
mod people;

use carillon_protocol::{Action, Delivery, GapReason, Notification, Resume, Severity, format_timestamp};

use super::rows::LIST_MAX_ROWS;
use super::stack::{LEAVE_MS, LIFE_MS, VISIBLE_MAX_TOASTS, WAITING_MAX_TOASTS};
use super::{Event, Hold, Inbox, Past, Row};
use crate::clock::Now;

/// The wall time at the start of the page's clock.
const EPOCH_MS: u64 = 1_795_247_100_000;

#[derive(Default)]
struct Page {
    inbox: Inbox,
    ms: u64,
    position: u64,
}

impl Page {
    fn apply(&mut self, event: Event) -> &mut Self {
        self.inbox.apply(Now { ms: self.ms, wall_ms: EPOCH_MS + self.ms }, event);
        self
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.ms += ms;
        self.apply(Event::Tick)
    }

    fn came(&mut self, id: &str) -> &mut Self {
        self.came_with(id, |_| {})
    }

    fn came_with(&mut self, id: &str, change: impl FnOnce(&mut Notification)) -> &mut Self {
        let delivery = self.delivery(id, change);
        self.apply(Event::Came(Box::new(delivery)))
    }

    /// The delivery of the next position.
    fn delivery(&mut self, id: &str, change: impl FnOnce(&mut Notification)) -> Delivery {
        let mut notification = Notification::text(format!("body of {id}"));
        notification.id = id.to_owned();
        notification.created_at = format_timestamp(EPOCH_MS + self.ms);
        change(&mut notification);
        self.position += 1;
        let cursor = format!("e.{}-0", self.position);
        Delivery { notification, claimed_by: "bff-2".to_owned(), cursor }
    }

    fn welcome(&mut self, resume: Resume, read: Option<&str>) -> &mut Self {
        let cursor = format!("e.{}-0", self.position);
        self.apply(Event::Welcomed { resume, cursor, user: None, read: read.map(str::to_owned) })
    }

    fn fill(&mut self, items: Vec<Delivery>, read: Option<&str>) -> &mut Self {
        let next = format!("e.{}-0", self.position);
        let read = read.map(str::to_owned);
        self.apply(Event::Filled(Past { items, next, read, ..Past::default() }))
    }

    /// The frames to the server.
    fn frames(&mut self) -> Vec<String> {
        self.inbox.take_frames().iter().map(carillon_protocol::ClientMessage::to_json).collect()
    }

    fn many(&mut self, count: usize) -> &mut Self {
        for n in 0..count {
            self.came(&format!("n{n}"));
        }
        self
    }

    fn toasts(&self) -> Vec<String> {
        self.inbox.stack().visible().iter().map(|toast| toast.item.id.clone()).collect()
    }

    fn leaving(&self) -> usize {
        self.inbox.stack().visible().iter().filter(|toast| toast.leaving()).count()
    }

    fn rows(&self) -> Vec<String> {
        let name = |row: &Row| match row {
            Row::Item(item) => item.id.clone(),
            Row::Sent(message) => message.id.clone(),
            Row::Gap { .. } => "gap".to_owned(),
        };
        self.inbox.rows().shown().map(name).collect()
    }

    fn more(&self) -> usize {
        self.inbox.stack().more()
    }
}

#[test]
fn a_toast_lives_three_seconds_and_stays_in_the_list() {
    let mut page = Page::default();
    page.came("a").after(LIFE_MS - 1);
    assert_eq!((page.toasts(), page.leaving()), (vec!["a".into()], 0));
    page.after(1);
    assert_eq!(page.leaving(), 1, "on its way out");
    assert_eq!(page.inbox.wake_at_ms(), Some(LIFE_MS + LEAVE_MS));
    page.after(LEAVE_MS);
    assert!(page.toasts().is_empty());
    assert_eq!((page.rows(), page.inbox.wake_at_ms()), (vec!["a".into()], None));
}

#[test]
fn five_toasts_are_shown_and_the_rest_follow() {
    let mut page = Page::default();
    page.many(8);
    assert_eq!((page.toasts(), page.more()), (["n0", "n1", "n2", "n3", "n4"].map(String::from).into(), 3));
    let third = page.inbox.stack().visible()[2].item.slot;
    page.apply(Event::Closed(third));
    assert_eq!(page.toasts().len(), VISIBLE_MAX_TOASTS, "its place is free when it has left");
    page.after(LEAVE_MS);
    assert_eq!((page.toasts(), page.more()), (["n0", "n1", "n3", "n4", "n5"].map(String::from).into(), 2));
    page.after(LIFE_MS - LEAVE_MS).after(LEAVE_MS);
    assert_eq!((page.toasts(), page.more()), (["n5", "n6", "n7"].map(String::from).into(), 0));
}

#[test]
fn the_queue_is_bounded_and_dropped_toasts_are_counted() {
    let mut page = Page::default();
    page.many(100);
    assert_eq!(page.more(), 100 - VISIBLE_MAX_TOASTS);
    page.after(LIFE_MS).after(LEAVE_MS);
    assert_eq!(page.toasts()[0], format!("n{}", 100 - WAITING_MAX_TOASTS), "the newest are kept");
    assert_eq!(page.rows().len(), 100);
    page.apply(Event::More);
    assert_eq!((page.toasts().len(), page.more()), (VISIBLE_MAX_TOASTS, 0));
}

#[test]
fn held_toasts_stay_and_restart_when_left() {
    let mut page = Page::default();
    page.came("a").after(LIFE_MS - 1).apply(Event::Held(Hold::Pointer, true)).came("b");
    page.after(60_000);
    assert_eq!((page.toasts().len(), page.leaving()), (2, 0));
    page.apply(Event::Held(Hold::Focus, true)).apply(Event::Held(Hold::Pointer, false)).after(60_000);
    assert_eq!(page.leaving(), 0, "the keyboard still holds them");
    let lives = page.inbox.stack().visible()[0].lives;
    page.apply(Event::Held(Hold::Focus, false)).after(LIFE_MS - 1);
    assert_eq!((page.leaving(), page.inbox.stack().visible()[0].lives), (0, lives + 1));
    page.after(1);
    assert_eq!(page.leaving(), 2);
}

#[test]
fn a_hold_ends_with_the_last_toast() {
    let mut page = Page::default();
    page.came("a").apply(Event::Held(Hold::Pointer, true)).apply(Event::Escaped).after(LEAVE_MS);
    assert!(page.toasts().is_empty());
    page.came("b").after(LIFE_MS);
    assert_eq!(page.leaving(), 1, "no event said that the pointer left, and it has");
}

#[test]
fn escape_closes_the_newest_and_then_the_one_before() {
    let mut page = Page::default();
    page.many(3).apply(Event::Escaped).apply(Event::Escaped).after(LEAVE_MS);
    assert_eq!(page.toasts(), ["n0"]);
    page.apply(Event::Escaped).apply(Event::Escaped).after(LEAVE_MS);
    assert!(page.toasts().is_empty());
}

#[test]
fn a_collapse_key_replaces_the_one_before() {
    let key = |key: &'static str| move |one: &mut Notification| one.collapse_key = Some(key.to_owned());
    let mut page = Page::default();
    page.came_with("build 1", key("build")).came("x").after(2_000).came_with("build 2", key("build"));
    assert_eq!(page.toasts(), ["build 2", "x"]);
    assert_eq!(page.rows(), ["x", "build 2"]);
    page.after(1_000);
    assert_eq!(page.leaving(), 1, "x; the build's life has begun anew");
    page.after(2_000).after(LEAVE_MS).came_with("build 3", key("build"));
    assert_eq!((page.toasts(), page.rows()), (vec!["build 3".into()], vec!["x".into(), "build 3".into()]));
    page.came_with("other", |one| {
        one.collapse_key = Some("build".to_owned());
        one.from = Some("someone else".to_owned());
    });
    assert_eq!(page.rows(), ["other", "x", "build 3"], "another sender's key is another key");
    assert_eq!(page.inbox.race().total(), 5);
}

#[test]
fn a_waiting_toast_is_replaced_in_place() {
    let mut page = Page::default();
    let key = |one: &mut Notification| one.collapse_key = Some("k".to_owned());
    page.many(5).came_with("k1", key).came("z").came_with("k2", key);
    assert_eq!(page.more(), 2);
    page.after(LIFE_MS).after(LEAVE_MS);
    assert_eq!(page.toasts(), ["k2", "z"]);
}

#[test]
fn expired_items_are_not_shown_and_are_removed() {
    let until =
        |ms: u64| move |one: &mut Notification| one.expires_at = Some(format_timestamp(EPOCH_MS + ms));
    let mut page = Page { ms: 1_000, ..Page::default() };
    page.came_with("late", until(1_000)).came_with("short", until(2_000)).came("x");
    assert_eq!(
        (page.toasts(), page.rows()),
        (vec!["short".into(), "x".into()], vec!["x".into(), "short".into()])
    );
    assert_eq!(page.inbox.wake_at_ms(), Some(2_000));
    page.apply(Event::Held(Hold::Pointer, true)).after(1_000).after(LEAVE_MS);
    assert_eq!((page.toasts(), page.rows()), (vec!["x".into()], vec!["x".into()]));
    assert_eq!(page.inbox.race().total(), 3, "it was won all the same");
}

#[test]
fn a_user_who_scrolled_down_sees_how_many_arrived() {
    let mut page = Page::default();
    page.came("old")
        .apply(Event::Away(true))
        .many(4)
        .apply(Event::Gap { reason: GapReason::Epoch, audience: None });
    assert_eq!((page.rows(), page.inbox.rows().fresh()), (vec!["old".into()], 4));
    page.apply(Event::Away(false));
    assert_eq!(page.rows(), ["gap", "n3", "n2", "n1", "n0", "old"]);
    assert_eq!(page.inbox.rows().fresh(), 0);
}

#[test]
fn the_list_is_bounded_above_the_reader_and_below() {
    let mut page = Page::default();
    page.many(LIST_MAX_ROWS + 1);
    assert_eq!((page.rows().len(), page.rows()[0].as_str()), (LIST_MAX_ROWS, "n500"));
    page.apply(Event::Away(true)).many(LIST_MAX_ROWS + 7);
    assert_eq!((page.rows().len(), page.inbox.rows().fresh()), (LIST_MAX_ROWS, LIST_MAX_ROWS + 7));
    page.apply(Event::Away(false));
    assert_eq!((page.rows().len(), page.rows()[0].as_str()), (LIST_MAX_ROWS, "n506"));
}

#[test]
fn after_a_resume_the_notice_counts_what_was_missed() {
    let mut page = Page::default();
    page.came("seen").after(10_000).welcome(Resume::Complete, None);
    let made = EPOCH_MS + 5_000;
    for id in ["a", "b"] {
        page.came_with(id, |one| one.created_at = format_timestamp(made));
    }
    assert_eq!(page.inbox.notice().map(|notice| (notice.missed, notice.gap)), Some((2, None)));
    page.apply(Event::Gap { reason: GapReason::Trimmed, audience: None });
    assert_eq!(page.inbox.notice().and_then(|notice| notice.gap), Some(GapReason::Trimmed));
    page.apply(Event::NoticeClosed);
    assert_eq!(page.inbox.notice(), None);
}

#[test]
fn only_links_of_the_web_are_made() {
    let link = |url: &'static str| {
        move |one: &mut Notification| {
            one.action = Some(Action { label: "Open".to_owned(), url: url.to_owned() })
        }
    };
    let mut page = Page::default();
    page.came_with("good", link("/jobs/7")).came_with("bad", link("javascript:alert(1)"));
    let links: Vec<_> =
        page.inbox.stack().visible().iter().map(|toast| toast.item.action.is_some()).collect();
    assert_eq!(links, [true, false]);
}

#[test]
fn an_announcement_has_the_severity_and_the_replica() {
    let mut page = Page::default();
    page.came_with("a", |one| {
        one.title = "Build 7".to_owned();
        one.body = "All green.".to_owned();
        one.severity = Severity::Success;
    });
    let words = page.inbox.stack().visible()[0].item.words();
    assert_eq!(words, "Success: Build 7. All green. Claimed by bff-2");
}
