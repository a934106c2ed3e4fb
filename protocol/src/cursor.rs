use std::fmt;
use std::str::FromStr;

/// The position of an entry in the one rising sequence that claim.lua assigns, written `ms-n`: the Redis server's
/// milliseconds since 1970 and a counter within them. It is the entry's id in its history stream, so positions compare
/// across audiences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Milliseconds since 1970 by the Redis server's clock.
    pub ms: u64,
    /// The counter of entries in the same millisecond.
    pub n: u64,
}

impl Position {
    /// The position before every entry.
    pub const ZERO: Self = Self { ms: 0, n: 0 };
    /// The position after every entry.
    pub const MAX: Self = Self { ms: NUMBER_MAX, n: 0 };

    /// Returns the position of the next entry at server time `now_ms`: always later than this one, even when the server's
    /// clock went back.
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

/// The largest number that Lua represents exactly; no larger one is ever assigned.
const NUMBER_MAX: u64 = (1 << 53) - 1;

fn digits(text: &str) -> Result<u64, CursorError> {
    // `parse` alone would accept "+1".
    let number = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
    number.filter(|number| *number <= NUMBER_MAX).ok_or(CursorError)
}

/// A position within an epoch, written `epoch.ms-n`. It is opaque to clients, which keep it and send it back. The epoch
/// names one unbroken data set, so that positions of different data sets are never mixed up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// A random id of 1 to 32 letters and digits.
    pub epoch: String,
    /// The last entry that the reader has seen.
    pub position: Position,
}

impl Cursor {
    /// Stands for an unreadable cursor: before every entry, in no epoch. A reader that names it gets all of history, and a
    /// gap.
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

/// The error of a text that is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorError;

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cursor is a text that this service sent, like 4f2a9c.1763712345678-0")
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
    fn positions_rise_even_when_the_clock_goes_back() {
        let first = Position::ZERO.next(1_000);
        assert_eq!(first.to_string(), "1000-0");
        assert_eq!(first.next(1_000).to_string(), "1000-1");
        assert_eq!(first.next(900).to_string(), "1000-1");
        assert_eq!(first.next(1_001).to_string(), "1001-0");
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_no_other_text_is() {
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
