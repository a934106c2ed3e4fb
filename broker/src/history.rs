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
    /// Later than the asked position, oldest first, with who appended each.
    pub(crate) entries: Vec<(String, Stored)>,
    /// What the first entry later than the asked position names as the one before it, whether or not it
    /// is among `entries`; `None` where there is no such entry.
    pub(crate) prev: Option<Position>,
    /// The stream's last position where nothing later than the asked position is held; else `None`.
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
    /// How far the parts reach together, if that is not the end. Every entry up to here is in them.
    pub(crate) reached: Option<Position>,
    pub(crate) parts: Vec<Part>,
}

/// Where a reader with a cursor begins in the current epoch. A position of an older data set may
/// stand later than entries of this one, so such a reader begins no later than the epoch itself;
/// what it has seen already it knows by id.
pub(crate) fn begin(since: &Cursor, epoch: &str, first: Position) -> Position {
    if since.epoch == epoch { since.position } else { since.position.min(first) }
}

/// Puts the parts of a read that began at `from` in order.
pub(crate) fn merge(since: &Cursor, from: Position, reading: Reading) -> History {
    let Reading { epoch, last, now_ms, reached, parts, .. } = reading;
    let gap = if since.epoch != epoch {
        Some(GapReason::Epoch)
    } else if parts.iter().any(|part| is_trimmed(part, from, last, now_ms)) {
        Some(GapReason::Trimmed)
    } else {
        None
    };

    let ended = reached.is_none();
    let reached = reached.unwrap_or(last.max(from));
    let mut entries: Vec<_> = parts
        .into_iter()
        .flat_map(|Part { audience, entries, .. }| {
            entries.into_iter().map(move |(claimed_by, stored)| Recalled {
                audience: audience.clone(),
                claimed_by,
                stored,
            })
        })
        .collect();
    entries.sort_by_key(|recalled| recalled.stored.position);

    let cursor = |position| Cursor { epoch: epoch.clone(), position };
    History { entries, from: cursor(from), reached: cursor(reached), ended, gap }
}

/// Whether an audience's history no longer reaches back to `from`.
fn is_trimmed(part: &Part, from: Position, last: Position, now_ms: u64) -> bool {
    let Some(age_ms) = history_age_ms(&part.audience) else { return false };
    let broken = part.prev.or(part.tail).is_some_and(|before| before > from);
    // Where nothing was given out since, nothing can be gone, however old the cursor is.
    broken || (from < last && from.ms < now_ms.saturating_sub(age_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn at(ms: u64) -> Position {
        Position { ms, n: 0 }
    }

    fn part(name: &str, chain: &[(u64, u64)]) -> Part {
        let stored = |(position, prev): &(u64, u64)| Stored {
            position: at(*position),
            prev: at(*prev),
            kind: Kind::Notification,
            raw: vec![],
        };
        Part {
            audience: Audience::Topic(name.into()),
            entries: chain.iter().map(|link| ("bff".into(), stored(link))).collect(),
            prev: chain.first().map(|(_, prev)| at(*prev)),
            tail: None,
        }
    }

    fn read_up_to(reached: Option<u64>, since: (&str, u64), parts: Vec<Part>) -> History {
        let since = Cursor { epoch: since.0.into(), position: at(since.1) };
        let reading = Reading {
            epoch: "e".into(),
            first: at(5),
            last: at(90),
            now_ms: 100,
            reached: reached.map(at),
            parts,
        };
        merge(&since, begin(&since, "e", at(5)), reading)
    }

    fn read(since: (&str, u64), parts: Vec<Part>) -> History {
        read_up_to(None, since, parts)
    }

    fn positions(history: &History) -> Vec<u64> {
        history.entries.iter().map(|recalled| recalled.stored.position.ms).collect()
    }

    #[test]
    fn entries_of_all_parts_come_in_the_order_of_the_sequence() {
        let parts = || vec![part("a", &[(20, 10), (40, 20)]), part("b", &[(30, 0)])];
        let history = read(("e", 10), parts());
        assert_eq!(positions(&history), [20, 30, 40]);
        assert_eq!((history.ended, history.reached.position, history.gap), (true, at(90), None));
        let history = read_up_to(Some(40), ("e", 10), parts());
        assert_eq!((history.ended, history.reached.position), (false, at(40)));
    }

    #[test]
    fn a_missing_link_is_a_gap_also_when_nothing_is_left() {
        assert_eq!(read(("e", 10), vec![part("a", &[(40, 20)])]).gap, Some(GapReason::Trimmed));
        let emptied = Part { tail: Some(at(40)), ..part("a", &[]) };
        assert_eq!(read(("e", 10), vec![emptied]).gap, Some(GapReason::Trimmed));
        let nothing_new = Part { tail: Some(at(10)), ..part("a", &[]) };
        assert_eq!(read(("e", 10), vec![nothing_new]).gap, None);
        let not_given = Part { prev: Some(at(40)), ..part("a", &[]) };
        assert_eq!(read_up_to(Some(20), ("e", 10), vec![not_given]).gap, Some(GapReason::Trimmed));
    }

    #[test]
    fn a_cursor_of_another_epoch_begins_before_this_one() {
        let history = read(("old", 70), vec![part("a", &[(40, 20)])]);
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
            reached: None,
            parts: vec![part("a", &[])],
        };
        assert_eq!(merge(&since, at(10), reading(now_ms, 11)).gap, Some(GapReason::Trimmed));
        assert_eq!(merge(&since, at(10), reading(now_ms - 1, 11)).gap, None);
        assert_eq!(merge(&since, at(10), reading(now_ms, 10)).gap, None, "nothing was given out since");
    }
}
