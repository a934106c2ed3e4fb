use std::collections::VecDeque;
use std::sync::Arc;

use carillon_protocol::{Audience, GapReason};

use super::{Item, Message};

/// Older rows than this many are forgotten. While someone reads further down, as many again wait.
pub const LIST_MAX_ROWS: usize = 500;

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A notification.
    Item(Arc<Item>),
    /// A message that this page sent.
    Sent(Arc<Message>),
    /// The place where some are missing.
    Gap {
        /// Its place on the screen.
        slot: u64,
        /// Why they are.
        reason: GapReason,
        /// Of which audience; `None` is all of them.
        audience: Option<Audience>,
    },
}

impl Row {
    /// Its place on the screen.
    #[must_use]
    pub fn slot(&self) -> u64 {
        match self {
            Self::Item(item) => item.slot,
            Self::Sent(message) => message.slot,
            Self::Gap { slot, .. } => *slot,
        }
    }

    /// The notification, where it is one.
    #[must_use]
    pub fn item(&self) -> Option<&Arc<Item>> {
        match self {
            Self::Item(item) => Some(item),
            Self::Sent(_) | Self::Gap { .. } => None,
        }
    }
}

/// What came, newest first. While someone reads further down nothing moves: what comes waits, and is
/// counted.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    shown: VecDeque<Row>,
    fresh: VecDeque<Row>,
    fresh_items: usize,
    away: bool,
    /// The newest that was forgotten for want of room.
    forgotten: Option<Arc<Item>>,
}

impl Rows {
    /// The rows on the screen, newest first.
    pub fn shown(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.shown.iter()
    }

    /// How many came while someone reads further down.
    #[must_use]
    pub fn fresh(&self) -> usize {
        self.fresh_items
    }

    /// All notifications, newest first, also those that came while someone reads further down.
    pub fn items(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.fresh.iter().chain(&self.shown).filter_map(Row::item)
    }

    /// The row at a place on the screen.
    #[must_use]
    pub fn at(&self, slot: u64) -> Option<&Row> {
        self.shown.iter().find(|row| row.slot() == slot)
    }

    /// Whether someone reads further down.
    #[must_use]
    pub fn away(&self) -> bool {
        self.away
    }

    /// The newest that was forgotten for want of room.
    #[must_use]
    pub fn forgotten(&self) -> Option<&Arc<Item>> {
        self.forgotten.as_ref()
    }

    /// The row that `item` takes the place of.
    pub(super) fn earlier(&self, item: &Item) -> Option<&Arc<Item>> {
        if !item.collapses() {
            return None;
        }
        self.items().find(|earlier| earlier.gives_way_to(item))
    }

    /// Puts a row on top, or in the place of the one with its slot.
    pub(super) fn push(&mut self, row: Row) {
        let Some(row) = self.replace(row) else { return };
        let rows = if self.away { &mut self.fresh } else { &mut self.shown };
        self.fresh_items += usize::from(self.away && row.item().is_some());
        rows.push_front(row);
        self.forget();
    }

    /// Puts a row in the place of the one with its slot; gives it back where there is none.
    pub(super) fn replace(&mut self, row: Row) -> Option<Row> {
        let same = |earlier: &&mut Row| earlier.slot() == row.slot();
        match self.fresh.iter_mut().chain(&mut self.shown).find(same) {
            Some(earlier) => {
                *earlier = row;
                None
            }
            None => Some(row),
        }
    }

    fn forget(&mut self) {
        for rows in [&mut self.shown, &mut self.fresh] {
            while rows.len() > LIST_MAX_ROWS {
                let row = rows.pop_back();
                self.forgotten = row.as_ref().and_then(Row::item).cloned().or(self.forgotten.take());
            }
        }
    }

    /// Someone reads further down, or is back at the top.
    pub(super) fn set_away(&mut self, away: bool) {
        self.away = away;
        if !away {
            while let Some(row) = self.fresh.pop_back() {
                self.shown.push_front(row);
            }
            self.forget();
            self.fresh_items = 0;
        }
    }

    pub(super) fn drop_expired(&mut self, now_ms: u64) {
        let alive = |row: &Row| row.item().is_none_or(|item| !item.expired(now_ms));
        let before = self.fresh.len();
        self.fresh.retain(alive);
        self.fresh_items -= before - self.fresh.len();
        self.shown.retain(alive);
    }

    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        self.items().filter_map(|item| item.expires_ms()).min()
    }
}
