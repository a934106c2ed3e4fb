use carillon_protocol::{GapReason, Resume};

/// A reader is caught up after this time without a notification.
pub const CAUGHT_UP_AFTER_MS: u64 = 1_000;
/// Notifications later than this after a welcome do not count as missed.
pub const CATCH_UP_MAX_MS: u64 = 30_000;
/// How long the number of missed notifications is shown.
pub const NOTICE_MS: u64 = 10_000;

/// The notice for a returning reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The number of missed notifications.
    pub missed: u32,
    /// Why older ones are missing for good, if they are. This stays until it is closed.
    pub gap: Option<GapReason>,
}

/// Distinguishes missed notifications from new ones. The protocol does not mark the end of missed ones, so they are those
/// that arrive without a pause and were created before the welcome, by the clock of the senders.
#[derive(Clone, Debug, Default)]
pub struct CatchUp {
    /// How far the senders' clock is ahead of the page's, at least: a notification is created before it arrives.
    ahead_ms: Option<i64>,
    open: Option<Open>,
    notice: Option<Notice>,
    until_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since_ms: u64,
    last_ms: u64,
    /// The time of the welcome on the senders' clock, if that is known.
    made_before_ms: Option<i64>,
}

impl CatchUp {
    /// The notice to show.
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

    /// Records a notification that was created at `made_ms` since 1970.
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
    fn counts_notifications_from_before_the_welcome() {
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
    fn without_the_senders_clock_a_pause_ends_the_count() {
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
    fn a_gap_is_shown_until_it_is_closed() {
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
