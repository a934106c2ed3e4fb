use carillon_protocol::limits::ADVANCE_MAX_IDS;
use carillon_protocol::sent::Read;
use carillon_protocol::{ClientMessage, Cursor, Named};

/// What is looked at this long is read.
pub const READ_AFTER_MS: u64 = 1_500;
/// The server is told at most this often how far the user has read, unless somebody asks for it.
pub const READ_EVERY_MS: u64 = 5_000;

/// How far the list is read. What is unread follows from this and the list alone.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Everything up to here is read.
    position: Option<Cursor>,
    /// How far the server knows of, where there is a signed-in user.
    told: Option<Cursor>,
    /// The newest that can be read.
    newest: Option<Cursor>,
    /// Whether somebody has the list before their eyes.
    looking: bool,
    due_ms: Option<u64>,
    said_ms: Option<u64>,
}

impl Reading {
    /// Everything up to here is read.
    #[must_use]
    pub fn position(&self) -> Option<&Cursor> {
        self.position.as_ref()
    }

    /// Whether somebody has the list before their eyes.
    #[must_use]
    pub fn looking(&self) -> bool {
        self.looking
    }

    /// Whether what stands at `cursor` is unread. What is of another data set than the newest can no longer
    /// be marked, and counts as read.
    #[must_use]
    pub fn is_unread(&self, cursor: &Cursor) -> bool {
        let current = self.newest.as_ref().is_some_and(|newest| newest.epoch == cursor.epoch);
        current && later(cursor, self.position.as_ref())
    }

    /// Whether `cursor` lies in what the server has not been told yet.
    fn untold(&self, cursor: &Cursor) -> bool {
        self.position.as_ref().is_some_and(|read| !later(cursor, Some(read)))
            && later(cursor, self.told.as_ref())
    }

    pub(super) fn came(&mut self, cursor: &Cursor) {
        if later(cursor, self.newest.as_ref()) {
            self.newest = Some(cursor.clone());
        }
    }

    /// Somebody has read this far, here or elsewhere. It never goes back within a data set.
    pub(super) fn move_to(&mut self, cursor: Cursor) {
        let stale = self.newest.as_ref().is_some_and(|newest| newest.epoch != cursor.epoch);
        let begins = self.position.is_none();
        if later(&cursor, self.position.as_ref()) && (begins || !stale) {
            self.position = Some(cursor);
        }
    }

    /// The server says that it knows of this much.
    pub(super) fn heard(&mut self, cursor: Cursor) {
        if later(&cursor, self.told.as_ref()) {
            self.told = Some(cursor.clone());
        }
        self.move_to(cursor);
    }

    pub(super) fn look(&mut self, looking: bool) {
        self.looking = looking;
    }

    /// Marks what came as read when it was looked at for long enough; true when it has done so.
    pub(super) fn settle(&mut self, now_ms: u64, at_top: bool) -> bool {
        let unread = self.newest.as_ref().is_some_and(|newest| self.is_unread(newest));
        if !(unread && self.looking && at_top) {
            self.due_ms = None;
            return false;
        }
        let soonest = self.said_ms.map_or(0, |said| said + READ_EVERY_MS);
        let due_ms = *self.due_ms.get_or_insert((now_ms + READ_AFTER_MS).max(soonest));
        now_ms >= due_ms && self.mark(now_ms)
    }

    /// Marks all that came as read; false when it was so already.
    pub(super) fn mark(&mut self, now_ms: u64) -> bool {
        let Some(newest) = self.newest.clone().filter(|newest| self.is_unread(newest)) else { return false };
        self.move_to(newest);
        self.due_ms = None;
        self.said_ms = Some(now_ms);
        true
    }

    /// What the server has to be told, given the messages from other users, newest first.
    pub(super) fn frames<'a>(
        &self,
        messages: impl Iterator<Item = (Named, &'a Cursor)>,
    ) -> Vec<ClientMessage> {
        let Some(position) = self.position.as_ref().filter(|read| self.untold(read)) else { return vec![] };
        let ids: Vec<_> =
            messages.filter(|(_, cursor)| self.untold(cursor)).map(|(named, _)| named).collect();
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
        reading.heard(cursor("a.5-0"));
        reading.heard(cursor("a.3-0"));
        assert_eq!(reading.position(), Some(&cursor("a.5-0")));
        reading.came(&cursor("a.6-0"));
        assert!(reading.is_unread(&cursor("a.6-0")) && !reading.is_unread(&cursor("a.5-0")));
        reading.came(&cursor("b.1-0"));
        assert!(!reading.is_unread(&cursor("a.6-0")), "nobody can mark what is of the old one");
        assert!(reading.is_unread(&cursor("b.1-0")));
        reading.heard(cursor("b.1-0"));
        reading.heard(cursor("a.9-0"));
        assert_eq!(reading.position(), Some(&cursor("b.1-0")), "what is said of the old one comes too late");
    }

    #[test]
    fn is_read_when_it_was_looked_at_and_the_server_is_not_told_too_often() {
        let mut reading = Reading::default();
        reading.came(&cursor("a.1-0"));
        assert!(!reading.settle(0, true), "nobody looks");
        reading.look(true);
        assert!(!reading.settle(0, false), "somebody reads further down");
        assert!(!reading.settle(0, true));
        assert_eq!(reading.wake_at_ms(), Some(READ_AFTER_MS));
        assert!(reading.settle(READ_AFTER_MS, true) && reading.wake_at_ms().is_none());
        reading.came(&cursor("a.2-0"));
        assert!(!reading.settle(READ_AFTER_MS + 1, true));
        assert_eq!(reading.wake_at_ms(), Some(READ_AFTER_MS + READ_EVERY_MS));
        reading.look(false);
        assert!(!reading.settle(READ_AFTER_MS + READ_EVERY_MS, true) && reading.wake_at_ms().is_none());
        assert!(reading.mark(1) && !reading.mark(1), "somebody asks for it");
    }

    #[test]
    fn tells_the_server_what_it_does_not_know() {
        let mut reading = Reading::default();
        let cursors: Vec<_> = (1..=250).map(|n| cursor(&format!("a.{n}-0"))).collect();
        let messages = || cursors.iter().rev().map(|cursor| (Named::Id("m".to_owned()), cursor));
        let told = |reading: &Reading| {
            let frames = reading.frames(messages()).into_iter().map(|frame| match frame {
                ClientMessage::Read(Read { cursor, ids }) => (cursor, ids.len()),
                other => panic!("{other:?}"),
            });
            frames.collect::<Vec<_>>()
        };
        assert_eq!(told(&reading), []);
        reading.heard(cursor("a.10-0"));
        assert_eq!(told(&reading), []);
        reading.move_to(cursor("a.240-0"));
        let expected = [(Some("a.240-0".to_owned()), 64), (None, 64), (None, 64), (None, 38)];
        assert_eq!(told(&reading), expected);
        reading.heard(cursor("a.240-0"));
        assert_eq!(told(&reading), []);
    }
}
