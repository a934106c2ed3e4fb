use carillon_protocol::limits::ADVANCE_MAX_IDS;
use carillon_protocol::sent::Read;
use carillon_protocol::{ClientMessage, Cursor, Named};

/// A notification that is visible for this long is read.
pub const READ_AFTER_MS: u64 = 1_500;
/// The shortest time between two reports of the read position, unless the user requests one.
pub const READ_EVERY_MS: u64 = 5_000;

/// The read position of the list, from which its unread items follow.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Everything up to here is read.
    position: Option<Cursor>,
    /// The read position that the server has, if a user is signed in.
    reported: Option<Cursor>,
    /// The newest notification.
    newest: Option<Cursor>,
    /// Whether the list is visible.
    is_visible: bool,
    due_ms: Option<u64>,
    reported_ms: Option<u64>,
}

impl Reading {
    /// Everything up to here is read.
    pub fn position(&self) -> Option<&Cursor> {
        self.position.as_ref()
    }

    /// Whether the list is visible.
    pub fn is_visible(&self) -> bool {
        self.is_visible
    }

    /// Whether the item at `cursor` is unread. An item of another data set than the newest cannot be marked any more, and
    /// counts as read.
    pub fn is_unread(&self, cursor: &Cursor) -> bool {
        let current = self.newest.as_ref().is_some_and(|newest| newest.epoch == cursor.epoch);
        current && later(cursor, self.position.as_ref())
    }

    /// Whether the server does not have a read position from `cursor` on.
    fn unreported(&self, cursor: &Cursor) -> bool {
        self.position.as_ref().is_some_and(|read| !later(cursor, Some(read)))
            && later(cursor, self.reported.as_ref())
    }

    pub(super) fn came(&mut self, cursor: &Cursor) {
        if later(cursor, self.newest.as_ref()) {
            self.newest = Some(cursor.clone());
        }
    }

    /// Moves the read position. It never goes back within a data set.
    pub(super) fn move_to(&mut self, cursor: Cursor) {
        let stale = self.newest.as_ref().is_some_and(|newest| newest.epoch != cursor.epoch);
        let begins = self.position.is_none();
        if later(&cursor, self.position.as_ref()) && (begins || !stale) {
            self.position = Some(cursor);
        }
    }

    /// Records the read position of the server.
    pub(super) fn confirm(&mut self, cursor: Cursor) {
        if later(&cursor, self.reported.as_ref()) {
            self.reported = Some(cursor.clone());
        }
        self.move_to(cursor);
    }

    pub(super) fn set_visible(&mut self, is_visible: bool) {
        self.is_visible = is_visible;
    }

    /// Marks the items as read once they were visible for long enough; returns true when it has done so.
    pub(super) fn settle(&mut self, now_ms: u64, at_top: bool) -> bool {
        let unread = self.newest.as_ref().is_some_and(|newest| self.is_unread(newest));
        if !(unread && self.is_visible && at_top) {
            self.due_ms = None;
            return false;
        }
        let soonest = self.reported_ms.map_or(0, |reported| reported + READ_EVERY_MS);
        let due_ms = *self.due_ms.get_or_insert((now_ms + READ_AFTER_MS).max(soonest));
        now_ms >= due_ms && self.mark(now_ms)
    }

    /// Marks all items as read; returns false when they were already.
    pub(super) fn mark(&mut self, now_ms: u64) -> bool {
        let Some(newest) = self.newest.clone().filter(|newest| self.is_unread(newest)) else { return false };
        self.move_to(newest);
        self.due_ms = None;
        self.reported_ms = Some(now_ms);
        true
    }

    /// Returns the messages to the server, given the messages from other users, newest first.
    pub(super) fn frames<'a>(
        &self,
        messages: impl Iterator<Item = (Named, &'a Cursor)>,
    ) -> Vec<ClientMessage> {
        let Some(position) = self.position.as_ref().filter(|read| self.unreported(read)) else {
            return vec![];
        };
        let ids: Vec<_> =
            messages.filter(|(_, cursor)| self.unreported(cursor)).map(|(named, _)| named).collect();
        let mut chunks = ids.chunks(ADVANCE_MAX_IDS).map(<[_]>::to_vec);
        let first = chunks.next().unwrap_or_default();
        let mut frames = vec![ClientMessage::Read(Read { cursor: Some(position.to_string()), ids: first })];
        frames.extend(chunks.map(|ids| ClientMessage::Read(Read { cursor: None, ids })));
        frames
    }

    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        self.due_ms
    }
}

/// Whether a cursor is later than another, or of another data set.
fn later(cursor: &Cursor, than: Option<&Cursor>) -> bool {
    than.is_none_or(|than| than.epoch != cursor.epoch || than.position < cursor.position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &str) -> Cursor {
        text.parse().unwrap()
    }

    #[test]
    fn never_goes_back_within_a_data_set() {
        let mut reading = Reading::default();
        reading.confirm(cursor("a.5-0"));
        reading.confirm(cursor("a.3-0"));
        assert_eq!(reading.position(), Some(&cursor("a.5-0")));
        reading.came(&cursor("a.6-0"));
        assert!(reading.is_unread(&cursor("a.6-0")) && !reading.is_unread(&cursor("a.5-0")));
        reading.came(&cursor("b.1-0"));
        assert!(!reading.is_unread(&cursor("a.6-0")), "nobody can mark what is of the old one");
        assert!(reading.is_unread(&cursor("b.1-0")));
        reading.confirm(cursor("b.1-0"));
        reading.confirm(cursor("a.9-0"));
        assert_eq!(reading.position(), Some(&cursor("b.1-0")), "what is said of the old one comes too late");
    }

    #[test]
    fn is_read_once_visible_and_reported_at_intervals() {
        let mut reading = Reading::default();
        reading.came(&cursor("a.1-0"));
        assert!(!reading.settle(0, true), "the list is not visible");
        reading.set_visible(true);
        assert!(!reading.settle(0, false), "the user has scrolled down");
        assert!(!reading.settle(0, true));
        assert_eq!(reading.wake_at_ms(), Some(READ_AFTER_MS));
        assert!(reading.settle(READ_AFTER_MS, true) && reading.wake_at_ms().is_none());
        reading.came(&cursor("a.2-0"));
        assert!(!reading.settle(READ_AFTER_MS + 1, true));
        assert_eq!(reading.wake_at_ms(), Some(READ_AFTER_MS + READ_EVERY_MS));
        reading.set_visible(false);
        assert!(!reading.settle(READ_AFTER_MS + READ_EVERY_MS, true) && reading.wake_at_ms().is_none());
        assert!(reading.mark(1) && !reading.mark(1), "the user requests it");
    }

    #[test]
    fn reports_what_the_server_does_not_have() {
        let mut reading = Reading::default();
        let cursors: Vec<_> = (1..=250).map(|n| cursor(&format!("a.{n}-0"))).collect();
        let messages = || cursors.iter().rev().map(|cursor| (Named::Id("m".to_owned()), cursor));
        let reported = |reading: &Reading| {
            let frames = reading.frames(messages()).into_iter().map(|frame| match frame {
                ClientMessage::Read(Read { cursor, ids }) => (cursor, ids.len()),
                other => panic!("{other:?}"),
            });
            frames.collect::<Vec<_>>()
        };
        assert_eq!(reported(&reading), []);
        reading.confirm(cursor("a.10-0"));
        assert_eq!(reported(&reading), []);
        reading.move_to(cursor("a.240-0"));
        let expected = [(Some("a.240-0".to_owned()), 64), (None, 64), (None, 64), (None, 38)];
        assert_eq!(reported(&reading), expected);
        reading.confirm(cursor("a.240-0"));
        assert_eq!(reported(&reading), []);
    }
}
