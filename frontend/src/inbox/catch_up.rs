use carillon_protocol::{GapReason, Resume};

/// A reader is caught up when nothing has come for this long.
pub const CAUGHT_UP_AFTER_MS: u64 = 1_000;
/// What comes later than this after a welcome is not counted as missed.
pub const CATCH_UP_MAX_MS: u64 = 30_000;
/// How long the count of what was missed stays on the screen.
pub const NOTICE_MS: u64 = 10_000;

/// What a returning reader is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How many came while it was away.
    pub missed: u32,
    /// Why older ones are gone, where they are. This stays until it is closed.
    pub gap: Option<GapReason>,
}

/// Tells what was missed from what is new. Nothing on the wire marks the end of what is sent after,
/// so it is what comes in one go and was made before the welcome, by the clock of the senders.
#[derive(Clone, Debug, Default)]
pub struct CatchUp {
    /// What the senders' clock is ahead of the page's, at least: what arrives was made before.
    ahead_ms: Option<i64>,
    open: Option<Open>,
    notice: Option<Notice>,
    until_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since_ms: u64,
    last_ms: u64,
    /// The welcome, on the senders' clock, where that is known.
    made_before_ms: Option<i64>,
}

impl CatchUp {
    /// What to say.
    #[must_use]
    pub fn notice(&self) -> Option<Notice> {
        self.notice
    }

    pub(super) fn welcomed(&mut self, now_ms: u64, resume: Resume) {
        if resume == Resume::None {
            return;
        }
        let made_before_ms = self.ahead_ms.map(|ahead| ahead + signed(now_ms));
        self.open = Some(Open { since_ms: now_ms, last_ms: now_ms, made_before_ms });
        self.notice = self.notice.filter(|notice| notice.gap.is_some());
    }

    pub(super) fn gap(&mut self, reason: GapReason) {
        let missed = self.notice.map_or(0, |notice| notice.missed);
        self.notice = Some(Notice { missed, gap: Some(reason) });
    }

    /// Something came that was made at `made_ms` since 1970.
    pub(super) fn came(&mut self, now_ms: u64, made_ms: u64) {
        let made_ms = signed(made_ms);
        let ahead = made_ms - signed(now_ms);
        self.ahead_ms = Some(self.ahead_ms.map_or(ahead, |known| known.max(ahead)));
        let Some(open) = &mut self.open else { return };
        let in_one_go =
            now_ms < open.last_ms + CAUGHT_UP_AFTER_MS && now_ms < open.since_ms + CATCH_UP_MAX_MS;
        if !in_one_go || open.made_before_ms.is_some_and(|welcome| made_ms > welcome) {
            self.open = None;
            return;
        }
        open.last_ms = now_ms;
        let gap = self.notice.and_then(|notice| notice.gap);
        let missed = self.notice.map_or(0, |notice| notice.missed);
        self.notice = Some(Notice { missed: missed + 1, gap });
        self.until_ms = now_ms + NOTICE_MS;
    }

    pub(super) fn settle(&mut self, now_ms: u64) {
        if self.wake_at_ms().is_some_and(|at| at <= now_ms) {
            self.notice = None;
        }
    }

    pub(super) fn close(&mut self) {
        self.notice = None;
    }

    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        self.notice.filter(|notice| notice.gap.is_none()).map(|_| self.until_ms)
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The senders' clock, on the page's.
    const AHEAD: u64 = 1_795_247_100_000;

    fn missed(catch_up: &CatchUp) -> Option<u32> {
        catch_up.notice().map(|notice| notice.missed)
    }

    #[test]
    fn counts_what_was_made_before_the_welcome() {
        let mut catch_up = CatchUp::default();
        catch_up.came(100, AHEAD + 95);
        catch_up.welcomed(9_000, Resume::Complete);
        assert_eq!(missed(&catch_up), None);
        for second in 1..9 {
            catch_up.came(9_010, AHEAD + second * 1_000);
        }
        catch_up.came(9_200, AHEAD + 9_190);
        catch_up.came(9_210, AHEAD + 8_000);
        assert_eq!(missed(&catch_up), Some(8), "the first that is new ends it");
        catch_up.settle(9_010 + NOTICE_MS - 1);
        assert_eq!(missed(&catch_up), Some(8));
        catch_up.settle(9_010 + NOTICE_MS);
        assert_eq!(missed(&catch_up), None);
    }

    #[test]
    fn without_the_senders_clock_a_pause_tells() {
        let mut catch_up = CatchUp::default();
        catch_up.welcomed(0, Resume::Complete);
        catch_up.came(10, AHEAD);
        catch_up.came(20, AHEAD);
        catch_up.came(20 + CAUGHT_UP_AFTER_MS, AHEAD);
        assert_eq!(missed(&catch_up), Some(2));
    }

    #[test]
    fn a_first_visit_missed_nothing() {
        let mut catch_up = CatchUp::default();
        catch_up.welcomed(0, Resume::None);
        catch_up.came(1, AHEAD);
        assert_eq!(catch_up.notice(), None);
    }

    #[test]
    fn a_gap_is_said_until_it_is_closed() {
        let mut catch_up = CatchUp::default();
        catch_up.welcomed(0, Resume::Gap);
        catch_up.gap(GapReason::Trimmed);
        catch_up.came(1, AHEAD);
        catch_up.settle(1_000_000);
        assert_eq!(catch_up.notice(), Some(Notice { missed: 1, gap: Some(GapReason::Trimmed) }));
        assert_eq!(catch_up.wake_at_ms(), None);
        catch_up.close();
        assert_eq!(catch_up.notice(), None);
    }
}
