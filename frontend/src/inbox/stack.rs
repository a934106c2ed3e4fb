use std::collections::VecDeque;
use std::sync::Arc;

use super::Item;

/// Maximum toasts on the screen at once.
pub const VISIBLE_MAX_TOASTS: usize = 5;
/// Maximum toasts that wait for a free place: the oldest is dropped, and is only in the list.
pub const WAITING_MAX_TOASTS: usize = 20;
/// How long a toast stays.
pub const LIFE_MS: u64 = 3_000;
/// The toast of a running job stays until the job has ended, or for this long without a report.
pub const JOB_LIFE_MS: u64 = 60_000;
/// How long a toast takes to leave; `--leave` in the style sheet is the same.
pub const LEAVE_MS: u64 = 120;

/// Why the toasts are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The pointer is over them.
    Pointer,
    /// The keyboard is in them.
    Focus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Runs { until_ms: u64 },
    Held,
    Leaves { until_ms: u64 },
}

/// A toast on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toast {
    /// The item that it shows.
    pub item: Arc<Item>,
    /// The number of its lives: its hairline restarts with each.
    pub lives: u32,
    /// Changes with its announcement; every announcement has its own number.
    pub announcement: u64,
    life: Life,
}

impl Toast {
    /// Whether it is leaving.
    pub fn leaving(&self) -> bool {
        matches!(self.life, Life::Leaves { .. })
    }

    fn begin(&mut self, life: Life) {
        self.life = life;
        self.lives += 1;
    }

    fn leave(&mut self, now_ms: u64) {
        if !self.leaving() {
            self.life = Life::Leaves { until_ms: now_ms + LEAVE_MS };
        }
    }
}

/// The toasts: those on the screen, oldest first, and those that wait for a place.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The number of toasts that the window has room for.
    places: usize,
    visible: Vec<Toast>,
    waiting: VecDeque<Arc<Item>>,
    /// The number of toasts that were dropped since the queue was last empty.
    passed_over: usize,
    last_announcement: u64,
    pointer: bool,
    focus: bool,
}

impl Default for Stack {
    fn default() -> Self {
        Self {
            places: VISIBLE_MAX_TOASTS,
            visible: Vec::new(),
            waiting: VecDeque::new(),
            passed_over: 0,
            last_announcement: 0,
            pointer: false,
            focus: false,
        }
    }
}

impl Stack {
    /// The toasts on the screen, oldest first.
    pub fn visible(&self) -> &[Toast] {
        &self.visible
    }

    /// The number of toasts that wait or were dropped.
    pub fn more(&self) -> usize {
        self.waiting.len() + self.passed_over
    }

    /// Whether the toasts are held.
    pub fn held(&self) -> bool {
        self.pointer || self.focus
    }

    pub(super) fn places(&self) -> usize {
        self.places
    }

    /// Sets the number of toasts that the window has room for.
    pub(super) fn set_places(&mut self, now_ms: u64, places: usize) {
        self.places = places.clamp(1, VISIBLE_MAX_TOASTS);
        // A toast without a place is only in the list.
        let kept = self.visible.iter().filter(|toast| !toast.leaving()).count();
        let over = kept.saturating_sub(self.places);
        for toast in self.visible.iter_mut().filter(|toast| !toast.leaving()).take(over) {
            toast.leave(now_ms);
        }
    }

    /// Shows the update of an item, unless its toast is closed and the job still runs, or the update is `repeated`: a query
    /// and the report of the same end may arrive in either order, long after each other.
    pub(super) fn update(&mut self, now_ms: u64, item: Arc<Item>, repeated: bool) {
        let shown = self.visible.iter().map(|toast| &toast.item).chain(&self.waiting);
        let closed = shown.filter(|shown| shown.slot == item.slot).count() == 0;
        if !(closed && (repeated || item.is_running())) {
            self.push(now_ms, item);
        }
    }

    /// Shows an item, now or when a place is free. An item with the same slot is replaced.
    pub(super) fn push(&mut self, now_ms: u64, item: Arc<Item>) {
        let life = self.new_life(now_ms, &item);
        if let Some(toast) = self.visible.iter_mut().find(|toast| toast.item.slot == item.slot) {
            if toast.item.words() != item.words() {
                self.last_announcement += 1;
                toast.announcement = self.last_announcement;
            }
            toast.item = item;
            toast.begin(life);
        } else if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.slot == item.slot) {
            *waiting = item;
        } else {
            if self.waiting.len() == WAITING_MAX_TOASTS {
                self.waiting.pop_front();
                self.passed_over += 1;
            }
            self.waiting.push_back(item);
        }
        self.settle(now_ms);
    }

    /// Removes toasts at the end of their lives, and fills free places.
    pub(super) fn settle(&mut self, now_ms: u64) {
        for toast in &mut self.visible {
            let lived = matches!(toast.life, Life::Runs { until_ms } if until_ms <= now_ms);
            if lived || toast.item.expired(now_ms) {
                toast.leave(now_ms);
            }
        }
        self.visible.retain(|toast| !matches!(toast.life, Life::Leaves { until_ms } if until_ms <= now_ms));
        self.waiting.retain(|item| !item.expired(now_ms));
        if self.visible.is_empty() {
            // A browser does not always report that the pointer left a removed element.
            (self.pointer, self.focus) = (false, false);
        }
        let full =
            self.visible.len() >= self.places && self.visible.iter().all(|toast| toast.item.is_running());
        // Long jobs do not keep other toasts waiting.
        if let Some(oldest) = self.visible.first_mut().filter(|_| full && !self.waiting.is_empty()) {
            oldest.leave(now_ms);
        }
        while self.visible.len() < self.places
            && let Some(item) = self.waiting.pop_front()
        {
            let life = self.new_life(now_ms, &item);
            self.last_announcement += 1;
            self.visible.push(Toast { item, lives: 0, announcement: self.last_announcement, life });
        }
        if self.waiting.is_empty() {
            self.passed_over = 0;
        }
    }

    fn new_life(&self, now_ms: u64, item: &Item) -> Life {
        let life_ms = if item.is_running() { JOB_LIFE_MS } else { LIFE_MS };
        if self.held() { Life::Held } else { Life::Runs { until_ms: now_ms + life_ms } }
    }

    /// Holds all toasts, so that nothing moves under a pointer; when the last cause is gone, every life restarts.
    pub(super) fn hold(&mut self, now_ms: u64, cause: Hold, on: bool) {
        let before = self.held();
        match cause {
            Hold::Pointer => self.pointer = on,
            Hold::Focus => self.focus = on,
        }
        if before == self.held() {
            return;
        }
        let lives: Vec<_> = self.visible.iter().map(|toast| self.new_life(now_ms, &toast.item)).collect();
        for (toast, life) in self.visible.iter_mut().zip(lives).filter(|(toast, _)| !toast.leaving()) {
            match life {
                Life::Held => toast.life = life,
                _ => toast.begin(life),
            }
        }
    }

    /// Closes a toast.
    pub(super) fn close(&mut self, now_ms: u64, slot: u64) {
        if let Some(toast) = self.visible.iter_mut().find(|toast| toast.item.slot == slot) {
            toast.leave(now_ms);
        }
    }

    /// The newest toast on the screen.
    pub fn newest(&self) -> Option<u64> {
        self.visible.iter().rev().find(|toast| !toast.leaving()).map(|toast| toast.item.slot)
    }

    /// Drops the waiting toasts: the user reads them in the list.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.passed_over = 0;
    }

    /// When [`Stack::settle`] has something to do, if nothing else happens.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let lives = self.visible.iter().filter_map(|toast| match toast.life {
            Life::Runs { until_ms } | Life::Leaves { until_ms } => Some(until_ms),
            Life::Held => None,
        });
        let shown = self.visible.iter().filter(|toast| !toast.leaving()).map(|toast| &toast.item);
        lives.chain(shown.chain(&self.waiting).filter_map(|item| item.expires_ms())).min()
    }
}
