//! Formats numbers and times for people.

use carillon_protocol::format_timestamp;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Seconds are shown in steps, so that a list does not flicker.
const STEP_S: u64 = 10;

/// Returns how long ago a time was, in a few characters. A time in the future, of another clock, counts as now.
pub fn ago(at_ms: u64, now_ms: u64) -> String {
    let past_ms = now_ms.saturating_sub(at_ms);
    let steps = [(DAY_MS, "d", 1), (HOUR_MS, "h", 1), (MINUTE_MS, "min", 1), (SECOND_MS, "s", STEP_S)];
    let format_in = |&(unit_ms, unit, step)| {
        let count = past_ms / unit_ms / step * step;
        (count > 0).then(|| format!("{count} {unit} ago"))
    };
    steps.iter().find_map(format_in).unwrap_or_else(|| "now".to_owned())
}

/// The exact time for a tooltip, in UTC.
pub fn exact(at_ms: u64) -> String {
    let text = format_timestamp(at_ms);
    format!("{} UTC", text.trim_end_matches('Z').replace('T', " "))
}

/// Returns a number with separated thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whole seconds left until then, at least one.
pub fn seconds_left(until_ms: u64, now_ms: u64) -> u64 {
    until_ms.saturating_sub(now_ms).div_ceil(SECOND_MS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_steps() {
        for (past_ms, words) in [
            (0, "now"),
            (9_999, "now"),
            (10_000, "10 s ago"),
            (59_999, "50 s ago"),
            (60_000, "1 min ago"),
            (3_599_999, "59 min ago"),
            (3_600_000, "1 h ago"),
            (86_400_000 * 3, "3 d ago"),
        ] {
            assert_eq!(ago(1_000_000_000, 1_000_000_000 + past_ms), words);
        }
        assert_eq!(ago(2_000, 1_000), "now", "made by a clock ahead of ours");
        assert_eq!(exact(1_795_247_100_124), "2026-11-21 07:45:00.124 UTC");
    }

    #[test]
    fn numbers_are_read_in_groups() {
        let texts = [0, 12, 999, 1_000, 65_536, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "12", "999", "1,000", "65,536", "1,234,567"]);
        assert_eq!(
            [(5_000, 2_001), (3_000, 2_999), (1, 9)].map(|(at, now)| seconds_left(at, now)),
            [3, 1, 1]
        );
    }
}
