use std::collections::VecDeque;
use std::sync::Arc;

use carillon_protocol::GapReason;

use super::Item;

/// Older rows than this many are forgotten. While someone reads further down, as many again wait.
pub const LIST_MAX_ROWS: usize = 500;

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A notification.
    Item(Arc<Item>),
    /// The place where some are missing.
    Gap {
        /// Its place on the screen.
        slot: u64,
        /// Why they are.
        reason: GapReason,
    },
}

impl Row {
    /// Its place on the screen.
    #[must_use]
    pub fn slot(&self) -> u64 {
        match self {
            Self::Item(item) => item.slot,
            Self::Gap { slot, .. } => *slot,
        }
    }

    fn item(&self) -> Option<&Arc<Item>> {
        match self {
            Self::Item(item) => Some(item),
            Self::Gap { .. } => None,
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

    /// The slot of the row that `item` takes the place of.
    pub(super) fn slot_for(&self, item: &Item) -> Option<u64> {
        if !item.collapses() {
            return None;
        }
        let mut items = self.fresh.iter().chain(&self.shown).filter_map(Row::item);
        items.find(|earlier| earlier.gives_way_to(item)).map(|earlier| earlier.slot)
    }

    pub(super) fn push(&mut self, row: Row) {
        let same = |earlier: &&mut Row| earlier.slot() == row.slot();
        if let Some(earlier) = self.fresh.iter_mut().chain(&mut self.shown).find(same) {
            *earlier = row;
            return;
        }
        let rows = if self.away { &mut self.fresh } else { &mut self.shown };
        self.fresh_items += usize::from(self.away && row.item().is_some());
        rows.push_front(row);
        rows.truncate(LIST_MAX_ROWS);
    }

    /// Someone reads further down, or is back at the top.
    pub(super) fn set_away(&mut self, away: bool) {
        self.away = away;
        if !away {
            while let Some(row) = self.fresh.pop_back() {
                self.shown.push_front(row);
            }
            self.shown.truncate(LIST_MAX_ROWS);
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
        let items = self.fresh.iter().chain(&self.shown).filter_map(Row::item);
        items.filter_map(|item| item.expires_ms()).min()
    }
}
