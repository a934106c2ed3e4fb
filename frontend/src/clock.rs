//! The page's two clocks: one that only moves forward, for lifetimes and waits, and wall time, for people to read.

use std::cell::RefCell;

/// A time on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on the page's clock, which never goes back.
    pub ms: u64,
    /// Milliseconds since 1970 by the device's clock.
    pub wall_ms: u64,
}

impl Now {
    /// Converts a wall time to a time of the page's clock.
    pub fn at(self, wall_ms: u64) -> u64 {
        (self.ms + wall_ms).saturating_sub(self.wall_ms)
    }
}

/// Advances by the larger of the differences of wall time and of the page's timer: the timer stops while a device sleeps,
/// and wall time may be set back.
#[derive(Debug, Default)]
pub struct Clock {
    ms: u64,
    wall_ms: u64,
    timer_ms: u64,
    started: bool,
}

impl Clock {
    /// Returns the time for both readings.
    pub fn read(&mut self, wall_ms: u64, timer_ms: u64) -> Now {
        if std::mem::replace(&mut self.started, true) {
            let wall = wall_ms.saturating_sub(self.wall_ms);
            self.ms += wall.max(timer_ms.saturating_sub(self.timer_ms));
        }
        (self.wall_ms, self.timer_ms) = (wall_ms, timer_ms);
        Now { ms: self.ms, wall_ms }
    }
}

/// Returns the current time.
pub fn now() -> Now {
    thread_local! {
        static CLOCK: RefCell<Clock> = RefCell::default();
    }
    let timer = leptos::prelude::window().performance().map_or(0.0, |timer| timer.now());
    CLOCK.with_borrow_mut(|clock| clock.read(whole_ms(js_sys::Date::now()), whole_ms(timer)))
}

/// Both of the browser's clocks are positive and far below 2^53.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole_ms(ms: f64) -> u64 {
    ms as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_through_sleep_and_a_clock_that_is_set_back() {
        let mut clock = Clock::default();
        assert_eq!(clock.read(1_000_000, 50), Now { ms: 0, wall_ms: 1_000_000 });
        assert_eq!(clock.read(1_000_100, 150).ms, 100);
        assert_eq!(clock.read(4_600_100, 250).ms, 3_600_100, "an hour of sleep");
        assert_eq!(clock.read(1_000_000, 350).ms, 3_600_200, "set back by an hour");
        assert_eq!(clock.read(1_000_007, 350).ms, 3_600_207, "from there on as before");
    }

    #[test]
    fn a_wall_time_is_a_moment_of_the_page() {
        let now = Now { ms: 500, wall_ms: 10_000 };
        assert_eq!((now.at(12_000), now.at(9_900), now.at(0)), (2_500, 400, 0));
    }
}
