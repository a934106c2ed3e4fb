//! What the page knows and shows, as a pure reducer: events and the time go in, toasts, rows, bars
//! and a notice come out. It touches no browser, so it is tested natively.

mod catch_up;
mod item;
mod race;
mod rows;
mod stack;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use carillon_protocol::{Delivery, GapReason, Resume};

pub use catch_up::{CATCH_UP_MAX_MS, CAUGHT_UP_AFTER_MS, CatchUp, NOTICE_MS, Notice};
pub use item::{Collapse, Item};
pub use race::{QUIET_AFTER_MS, QUIET_AFTER_WINS, RACER_HUES, RACERS_MAX, Race, Standing};
pub use rows::{LIST_MAX_ROWS, Row, Rows};
pub use stack::{Hold, LEAVE_MS, LIFE_MS, Stack, Toast, VISIBLE_MAX_TOASTS, WAITING_MAX_TOASTS};

use crate::clock::Now;

/// What happens to an inbox.
#[derive(Clone, Debug)]
pub enum Event {
    /// A notification that was not seen before.
    Came(Box<Delivery>),
    /// The connection is live.
    Welcomed(Resume),
    /// Some are gone for good.
    Gap(GapReason),
    /// The toasts are held, or no longer.
    Held(Hold, bool),
    /// Someone closes a toast.
    Closed(u64),
    /// Someone closes the newest toast.
    Escaped,
    /// Someone asks for those that wait.
    More,
    /// Someone reads further down in the list, or is back at its top.
    Away(bool),
    /// Someone has read the notice.
    NoticeClosed,
    /// Time has passed.
    Tick,
}

/// All that the page shows of what came.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    last_slot: u64,
    stack: Stack,
    rows: Rows,
    race: Race,
    catch_up: CatchUp,
}

impl Inbox {
    /// The toasts.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The list.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Who won how many.
    #[must_use]
    pub fn race(&self) -> &Race {
        &self.race
    }

    /// What a returning reader is told.
    #[must_use]
    pub fn notice(&self) -> Option<Notice> {
        self.catch_up.notice()
    }

    /// When to say [`Event::Tick`], if nothing else happens.
    #[must_use]
    pub fn wake_at_ms(&self) -> Option<u64> {
        let all = [self.stack.wake_at_ms(), self.rows.wake_at_ms(), self.catch_up.wake_at_ms()];
        all.into_iter().flatten().min()
    }

    /// Takes in what happened at `now`.
    pub fn apply(&mut self, now: Now, event: Event) {
        match event {
            Event::Came(delivery) => self.came(now, *delivery),
            Event::Welcomed(resume) => self.catch_up.welcomed(now.ms, resume),
            Event::Gap(reason) => {
                self.catch_up.gap(reason);
                let slot = self.new_slot();
                self.rows.push(Row::Gap { slot, reason });
            }
            Event::Held(cause, on) => self.stack.hold(now.ms, cause, on),
            Event::Closed(slot) => self.stack.close(now.ms, slot),
            Event::Escaped => {
                if let Some(slot) = self.stack.newest() {
                    self.stack.close(now.ms, slot);
                }
            }
            Event::More => {
                self.stack.forget_waiting();
                self.rows.set_away(false);
            }
            Event::Away(away) => self.rows.set_away(away),
            Event::NoticeClosed => self.catch_up.close(),
            Event::Tick => {}
        }
        self.stack.settle(now.ms);
        self.rows.drop_expired(now.ms);
        self.catch_up.settle(now.ms);
    }

    fn came(&mut self, now: Now, delivery: Delivery) {
        let mut item = Item::new(now, delivery);
        self.race.won(now.ms, &item.replica);
        self.catch_up.came(now.ms, item.at_ms);
        if item.expired(now.ms) {
            return;
        }
        item.slot = self.rows.slot_for(&item).unwrap_or_else(|| self.new_slot());
        let item = Arc::new(item);
        self.rows.push(Row::Item(Arc::clone(&item)));
        self.stack.push(now.ms, item);
    }

    fn new_slot(&mut self) -> u64 {
        self.last_slot += 1;
        self.last_slot
    }
}
