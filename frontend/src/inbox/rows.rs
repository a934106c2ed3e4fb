use std::collections::VecDeque;
use std::sync::Arc;

use carillon_protocol::{Audience, GapReason};

use super::{Item, Message};

/// Maximum rows; older ones are removed. While the user has scrolled down, as many again wait.
pub const LIST_MAX_ROWS: usize = 500;

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A notification.
    Item(Arc<Item>),
    /// A message that this page sent.
    Sent(Arc<Message>),
    /// The place of missing notifications.
    Gap {
        /// Its slot on the screen.
        slot: u64,
        /// The reason.
        reason: GapReason,
        /// The audience; `None` is all of them.
        audience: Option<Audience>,
    },
}

impl Row {
    /// Its slot on the screen.
    pub fn slot(&self) -> u64 {
        match self {
            Self::Item(item) => item.slot,
            Self::Sent(message) => message.slot,
            Self::Gap { slot, .. } => *slot,
        }
    }

    /// The notification, if the row is one.
    pub fn item(&self) -> Option<&Arc<Item>> {
        match self {
            Self::Item(item) => Some(item),
            Self::Sent(_) | Self::Gap { .. } => None,
        }
    }
}

/// The rows, newest first. While the user has scrolled down, the shown rows do not move: new ones wait, and are counted.
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

    /// The number of rows that wait while the user has scrolled down.
    pub fn fresh(&self) -> usize {
        self.fresh_items
    }

    /// All notifications, newest first, with those that wait.
    pub fn items(&self) -> impl Iterator<Item = &Arc<Item>> {
        self.fresh.iter().chain(&self.shown).filter_map(Row::item)
    }

    /// The row of a slot.
    pub fn at(&self, slot: u64) -> Option<&Row> {
        self.shown.iter().find(|row| row.slot() == slot)
    }

    /// Whether the user has scrolled down.
    pub fn away(&self) -> bool {
        self.away
    }

    /// The newest that was forgotten for want of room.
    pub fn forgotten(&self) -> Option<&Arc<Item>> {
        self.forgotten.as_ref()
    }

    /// The row that `item` replaces.
    pub(super) fn earlier(&self, item: &Item) -> Option<&Arc<Item>> {
        if !item.collapses() {
            return None;
        }
        self.items().find(|earlier| earlier.gives_way_to(item))
    }

    /// Adds a row on top, or replaces the row of its slot.
    pub(super) fn push(&mut self, row: Row) {
        let Some(row) = self.replace(row) else { return };
        let rows = if self.away { &mut self.fresh } else { &mut self.shown };
        self.fresh_items += usize::from(self.away && row.item().is_some());
        rows.push_front(row);
        self.forget();
    }

    /// Replaces the row of its slot; returns the given row if there is none.
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

    /// Sets whether the user has scrolled down.
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
