use std::fmt;
use std::str::FromStr;

/// Where an entry stands in the one rising sequence that claim.lua gives out, written `ms-n`: the
/// Redis server's milliseconds since 1970 and a counter within them. It is the entry's id in
/// whichever history stream it joins, so positions compare across audiences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Milliseconds since 1970 by the Redis server's clock.
    pub ms: u64,
    /// Counts entries of the same millisecond.
    pub n: u64,
}

impl Position {
    /// Before every entry.
    pub const ZERO: Self = Self { ms: 0, n: 0 };
    /// After every entry.
    pub const MAX: Self = Self { ms: NUMBER_MAX, n: 0 };

    /// The position given to the next entry at server time `now_ms`: later than this one, also when
    /// the server's clock went back.
    #[must_use]
    pub fn next(self, now_ms: u64) -> Self {
        if now_ms > self.ms { Self { ms: now_ms, n: 0 } } else { Self { ms: self.ms, n: self.n + 1 } }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}

impl FromStr for Position {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (ms, n) = text.split_once('-').ok_or(CursorError)?;
        Ok(Self { ms: digits(ms)?, n: digits(n)? })
    }
}

/// The largest number that Lua counts exactly. A larger one was given out by nobody.
const NUMBER_MAX: u64 = (1 << 53) - 1;

fn digits(text: &str) -> Result<u64, CursorError> {
    // `parse` alone would take "+1".
    let number = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
    number.filter(|number| *number <= NUMBER_MAX).ok_or(CursorError)
}

/// A position within an epoch, written `epoch.ms-n`. Clients keep it and hand it back; only the
/// server looks inside. The epoch names one unbroken data set, so that a position of another one is
/// never taken for one of this.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// A random id of 1 to 32 letters and digits.
    pub epoch: String,
    /// The last entry that the reader has seen.
    pub position: Position,
}

impl Cursor {
    /// Stands for a cursor that could not be read: before everything, in no epoch. A reader that names one gets all that
    /// there is, and a gap.
    #[must_use]
    pub fn unreadable() -> Self {
        Self { epoch: String::new(), position: Position::ZERO }
    }

    /// Whether it is [`Cursor::unreadable`].
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.epoch.is_empty()
    }
}

/// A text that is not a cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorError;

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cursor is a text that this service gave out, like 4f2a9c.1763712345678-0")
    }
}

impl std::error::Error for CursorError {}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.position)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, position) = text.split_once('.').ok_or(CursorError)?;
        let named = (1..=32).contains(&epoch.len()) && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !named {
            return Err(CursorError);
        }
        Ok(Self { epoch: epoch.to_owned(), position: position.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_rise_also_when_the_clock_goes_back() {
        let first = Position::ZERO.next(1_000);
        assert_eq!(first.to_string(), "1000-0");
        assert_eq!(first.next(1_000).to_string(), "1000-1");
        assert_eq!(first.next(900).to_string(), "1000-1");
        assert_eq!(first.next(1_001).to_string(), "1001-0");
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let cursor: Cursor = "4f2a9c.1763712345678-3".parse().unwrap();
        assert_eq!(cursor.to_string(), "4f2a9c.1763712345678-3");
        for text in [
            "",
            "x",
            ".1-1",
            "a.1",
            "a.1-",
            "a.-1",
            "a.+1-0",
            "a b.1-0",
            "a.1-0-0",
            "a.99999999999999999999-0",
            "a.9007199254740992-0",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
