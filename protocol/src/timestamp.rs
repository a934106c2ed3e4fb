//! Converts RFC 3339 timestamps to and from milliseconds since 1970, with the civil-calendar arithmetic of Howard Hinnant's
//! "chrono-Compatible Low-Level Date Algorithms". It is written here because `protocol` has to stay small in the browser.

/// Returns the milliseconds since 1970 of an RFC 3339 timestamp; `None` for any other text, and for dates before 1970.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let digit =
        |at: usize| bytes.get(at).filter(|byte| byte.is_ascii_digit()).map(|byte| i64::from(byte - b'0'));
    let number =
        |range: std::ops::Range<usize>| range.map(digit).try_fold(0, |sum, next| Some(sum * 10 + next?));
    let is = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|byte| allowed.contains(byte));

    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }

    let mut at = 19;
    let mut millis = 0;
    if is(at, b".") {
        let mut scale = 100;
        at += 1;
        let first = at;
        while let Some(value) = digit(at) {
            millis += value * scale;
            scale /= 10;
            at += 1;
        }
        if at == first {
            return None;
        }
    }
    let offset_minutes = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let (hours, minutes) = (number(at + 1..at + 3)?, number(at + 4..at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let minutes = hours * 60 + minutes;
            if *sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    u64::try_from((minutes * 60 + second) * 1_000 + millis).ok()
}

/// Returns the RFC 3339 timestamp in UTC with milliseconds, for example `2026-11-21T07:45:00.123Z`.
#[must_use]
pub fn format_timestamp(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil_from_days(i64::try_from(days).unwrap_or(i64::MAX / 1_000));
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, millis) = (in_day / 1_000 % 60, in_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_rfc_3339_allows() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-21T07:45:00.123Z", 1_795_247_100_123),
            ("2026-11-21T08:45:00.1239999+01:00", 1_795_247_100_123),
            ("2024-02-29t23:59:60z", 1_709_251_200_000),
            ("1999-12-31 23:30:00-00:30", 946_684_800_000),
        ] {
            assert_eq!(parse_timestamp(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            "2026-11-21",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T07:45:00",
            "2026-11-21T07:45:00.Z",
            "2026-11-21T07:45:00Z ",
            "1969-12-31T23:59:59Z",
            "2026-11-21T07:45:00+1:00",
            "２026-11-21T07:45:00Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn writes_and_reads_the_same() {
        for ms in [0, 951_782_400_000, 1_795_247_100_123, 4_102_444_799_999] {
            assert_eq!(parse_timestamp(&format_timestamp(ms)), Some(ms));
        }
        assert_eq!(format_timestamp(1_795_247_100_123), "2026-11-21T07:45:00.123Z");
    }

    #[test]
    fn agrees_with_jiff_up_to_the_year_9999() {
        const LAST_MS: u64 = 253_402_207_200_000;
        // Eleven days and some, so that every month, hour, second and millisecond occurs.
        const STEP_MS: usize = 976_397_123;
        for ms in (0..LAST_MS).step_by(STEP_MS) {
            let theirs = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap();
            let text = format!("{theirs:.3}");
            assert_eq!(format_timestamp(ms), text);
            assert_eq!(parse_timestamp(&text), Some(ms));
        }
    }
}
