use carillon_protocol::{Audience, Cursor, GapReason, Position};

use crate::Stored;
use crate::limits::history_age_ms;

/// What a read of several histories found, in the order of the one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Oldest first.
    pub entries: Vec<Recalled>,
    /// Where the read began: the reader's cursor, or an earlier one in the current epoch.
    pub from: Cursor,
    /// How far the reader has come when it has taken all entries.
    pub reached: Cursor,
    /// Whether that was the end at the time of the read.
    pub ended: bool,
    /// Set when something between the reader's cursor and `reached` is gone.
    pub gap: Option<GapReason>,
}

/// An entry from history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// Whom it is for.
    pub audience: Audience,
    /// The replica that claimed it.
    pub claimed_by: String,
    /// The entry.
    pub stored: Stored,
}

/// One audience's part of a read.
pub(crate) struct Part {
    pub(crate) audience: Audience,
    /// Later than the asked position, oldest first.
    pub(crate) entries: Vec<(String, Stored)>,
    /// Whether there may be more after the last of them.
    pub(crate) full: bool,
    /// The stream's last position, whether or not it is still held; `None` without a stream.
    pub(crate) tail: Option<Position>,
}

/// What an engine read in one atomic step.
pub(crate) struct Reading {
    pub(crate) epoch: String,
    /// The epoch's first position.
    pub(crate) first: Position,
    /// The last position given out.
    pub(crate) last: Position,
    pub(crate) now_ms: u64,
    pub(crate) parts: Vec<Part>,
}

/// Where a reader with a cursor begins in the current epoch. A position of an older data set may
/// stand later than entries of this one, so such a reader begins no later than the epoch itself;
/// what it has seen already it knows by id.
pub(crate) fn begin(since: &Cursor, epoch: &str, first: Position) -> Position {
    if since.epoch == epoch { since.position } else { since.position.min(first) }
}

/// Puts the parts of a read that began at `from` in order. Entries are given out only up to the
/// lowest last position among parts that came back full: beyond it, the full part may hold an
/// earlier entry that was not read yet.
pub(crate) fn merge(since: &Cursor, from: Position, reading: Reading) -> History {
    let Reading { epoch, last, now_ms, parts, .. } = reading;
    let gap = if since.epoch != epoch {
        Some(GapReason::Epoch)
    } else if parts.iter().any(|part| is_trimmed(part, from, last, now_ms)) {
        Some(GapReason::Trimmed)
    } else {
        None
    };

    let bound = parts
        .iter()
        .filter(|part| part.full)
        .filter_map(|part| part.entries.last())
        .map(|(_, entry)| entry.position)
        .min();
    let ended = bound.is_none();
    let reached = bound.unwrap_or(last.max(from));
    let mut entries: Vec<_> = parts
        .into_iter()
        .flat_map(|Part { audience, entries, .. }| {
            entries.into_iter().map(move |(claimed_by, stored)| Recalled {
                audience: audience.clone(),
                claimed_by,
                stored,
            })
        })
        .filter(|recalled| recalled.stored.position <= reached)
        .collect();
    entries.sort_by_key(|recalled| recalled.stored.position);

    let cursor = |position| Cursor { epoch: epoch.clone(), position };
    History { entries, from: cursor(from), reached: cursor(reached), ended, gap }
}

/// Whether an audience's history no longer reaches back to `from`.
fn is_trimmed(part: &Part, from: Position, last: Position, now_ms: u64) -> bool {
    let Some(age_ms) = history_age_ms(&part.audience) else { return false };
    let broken = match part.entries.first() {
        Some((_, entry)) => entry.prev > from,
        None => part.tail.is_some_and(|tail| tail > from),
    };
    // Where nothing was given out since, nothing can be gone, however old the cursor is.
    broken || (from < last && from.ms < now_ms.saturating_sub(age_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Position {
        Position { ms, n: 0 }
    }

    fn part(name: &str, full: bool, chain: &[(u64, u64)]) -> Part {
        let stored =
            |(position, prev): &(u64, u64)| Stored { position: at(*position), prev: at(*prev), raw: vec![] };
        Part {
            audience: Audience::Topic(name.into()),
            entries: chain.iter().map(|link| ("bff".into(), stored(link))).collect(),
            full,
            tail: chain.last().map(|(position, _)| at(*position)),
        }
    }

    fn read(since: (&str, u64), parts: Vec<Part>) -> History {
        let since = Cursor { epoch: since.0.into(), position: at(since.1) };
        let reading = Reading { epoch: "e".into(), first: at(5), last: at(90), now_ms: 100, parts };
        merge(&since, begin(&since, "e", at(5)), reading)
    }

    fn positions(history: &History) -> Vec<u64> {
        history.entries.iter().map(|recalled| recalled.stored.position.ms).collect()
    }

    #[test]
    fn entries_of_all_parts_come_in_the_order_of_the_sequence() {
        let history =
            read(("e", 10), vec![part("a", false, &[(20, 10), (40, 20)]), part("b", false, &[(30, 0)])]);
        assert_eq!(positions(&history), [20, 30, 40]);
        assert_eq!((history.ended, history.reached.position, history.gap), (true, at(90), None));
    }

    #[test]
    fn nothing_is_given_out_beyond_a_part_that_may_have_more() {
        let history = read(
            ("e", 10),
            vec![part("a", true, &[(20, 10), (30, 20)]), part("b", false, &[(25, 0), (60, 25)])],
        );
        assert_eq!(positions(&history), [20, 25, 30]);
        assert_eq!((history.ended, history.reached.position), (false, at(30)));
    }

    #[test]
    fn a_missing_link_is_a_gap_also_when_nothing_is_left() {
        assert_eq!(read(("e", 10), vec![part("a", false, &[(40, 20)])]).gap, Some(GapReason::Trimmed));
        let emptied = Part { tail: Some(at(40)), ..part("a", false, &[]) };
        assert_eq!(read(("e", 10), vec![emptied]).gap, Some(GapReason::Trimmed));
        let nothing_new = Part { tail: Some(at(10)), ..part("a", false, &[]) };
        assert_eq!(read(("e", 10), vec![nothing_new]).gap, None);
    }

    #[test]
    fn a_cursor_of_another_epoch_begins_before_this_one() {
        let history = read(("old", 70), vec![part("a", false, &[(40, 20)])]);
        assert_eq!(history.gap, Some(GapReason::Epoch));
        assert!(history.from.position == at(5) && history.from.epoch == "e");
        assert_eq!(
            read(("old", 3), vec![]).from.position,
            at(3),
            "what is older and was kept is still given"
        );
    }

    #[test]
    fn a_cursor_older_than_the_age_of_history_is_a_gap() {
        let since = Cursor { epoch: "e".into(), position: at(10) };
        let now_ms = 10 + 24 * 60 * 60 * 1_000 + 1;
        let reading = |now_ms, last| Reading {
            epoch: "e".into(),
            first: at(5),
            last: at(last),
            now_ms,
            parts: vec![part("a", false, &[])],
        };
        assert_eq!(merge(&since, at(10), reading(now_ms, 11)).gap, Some(GapReason::Trimmed));
        assert_eq!(merge(&since, at(10), reading(now_ms - 1, 11)).gap, None);
        assert_eq!(merge(&since, at(10), reading(now_ms, 10)).gap, None, "nothing was given out since");
    }
}
