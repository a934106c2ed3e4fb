//! Reads the answer of read.lua, puts the parts of several histories in order, and finds the gaps in them.

use carillon_protocol::{Audience, Cursor, GapReason, Position};

use super::{Gap, History, Recalled};
use crate::engine::{optional_position, position, text};
use crate::{BrokerError, EntryKind, Retention, Stored};

/// One audience's part of a read.
struct Part {
    audience: Audience,
    /// The entries beyond the position of the read, nearest first, each with the replica that claimed it.
    entries: Vec<(String, Stored)>,
    /// The position that the first entry after the position of the read names as the one before it, whether or not that
    /// first entry is among `entries`; `None` where there is no such entry.
    prev: Option<Position>,
    /// The stream's last position where it holds no entry after the position of the read; otherwise `None`.
    tail: Option<Position>,
}

/// The answer of read.lua, which is one atomic step.
pub(super) struct Reading {
    pub(super) epoch: String,
    /// The epoch's first position.
    first: Position,
    /// The last position given out.
    pub(super) last: Position,
    now_ms: u64,
    /// How far the parts reach together; `None` at the end. They have every entry up to here.
    reached: Option<Position>,
    unreadable: u64,
    parts: Vec<Part>,
}

/// The answer of read.lua: epoch, first and last position, clock, how far the parts reach, unreadable entries; and of each
/// part `prev`, `tail` and its entries.
pub(super) type Answer = (String, String, String, u64, String, u64, Vec<(String, String, Vec<Vec<u8>>)>);

impl Reading {
    /// Reads the answer of read.lua for these audiences.
    pub(super) fn new(audiences: &[Audience], answer: Answer) -> Result<Self, BrokerError> {
        let (epoch, first, last, now_ms, reached, unreadable, parts) = answer;
        let parts = audiences
            .iter()
            .zip(parts)
            .map(|(audience, (prev, tail, entries))| {
                let entries = entries.chunks_exact(5).map(history_entry).collect::<Result<_, _>>()?;
                let (prev, tail) = (optional_position(&prev)?, optional_position(&tail)?);
                Ok(Part { audience: audience.clone(), entries, prev, tail })
            })
            .collect::<Result<_, BrokerError>>()?;
        let (first, last) = (position(first.as_bytes())?, position(last.as_bytes())?);
        let reached = optional_position(&reached)?;
        Ok(Self { epoch, first, last, now_ms, reached, unreadable, parts })
    }

    /// Where a reader with a cursor begins in the current epoch. A position of an older data set may be later than entries
    /// of this one, so such a reader begins no later than the epoch itself; entries that it has received already it knows
    /// by their id.
    pub(super) fn beginning(&self, since: &Cursor) -> Position {
        if since.epoch == self.epoch { since.position } else { since.position.min(self.first) }
    }

    /// The history of a reader with the cursor `since`, after a read forward that began at `from`.
    pub(super) fn since(self, since: &Cursor, from: Position, retention: &Retention) -> History {
        let gaps = self.gaps(since, from, retention);
        let Self { epoch, last, reached, unreadable, parts, .. } = self;
        let cursor = |position| Cursor { epoch: epoch.clone(), position };
        History {
            entries: in_order(parts),
            from: cursor(from),
            reached: cursor(reached.unwrap_or(last.max(from))),
            ended: reached.is_none(),
            gaps,
            unreadable,
        }
    }

    /// The history before `from`, after a read back that began there.
    pub(super) fn before(self, from: Position) -> History {
        let Self { epoch, last, reached, unreadable, parts, .. } = self;
        let cursor = |position| Cursor { epoch: epoch.clone(), position };
        let entries = in_order(parts);
        let oldest = entries.first().map_or(from.min(last), |oldest| oldest.stored.position);
        History {
            entries,
            from: cursor(from.min(last)),
            reached: cursor(oldest),
            ended: reached.is_none(),
            gaps: vec![],
            unreadable,
        }
    }

    fn gaps(&self, since: &Cursor, from: Position, retention: &Retention) -> Vec<Gap> {
        if since.is_unreadable() {
            return vec![Gap { reason: GapReason::Unreadable, audience: None }];
        }
        if since.epoch != self.epoch {
            return vec![Gap { reason: GapReason::Epoch, audience: None }];
        }
        let trimmed = self.parts.iter().filter(|part| self.is_trimmed(part, from, retention));
        trimmed
            .map(|part| Gap { reason: GapReason::Trimmed, audience: Some(part.audience.clone()) })
            .collect()
    }

    /// Whether an audience's history no longer reaches back to `from`. Each entry names the one before it, so where a
    /// stream is left, this chain shows it, however old the cursor is. Where no stream is left, entries may be lost that
    /// were older than the audience's age.
    fn is_trimmed(&self, part: &Part, from: Position, retention: &Retention) -> bool {
        let Some(keep) = retention.of(&part.audience) else { return false };
        match part.prev.or(part.tail) {
            Some(before) => before > from,
            // Where no position was given out since, no entry can be lost.
            None => from < self.last && from.ms < self.now_ms.saturating_sub(keep.age_ms()),
        }
    }
}

/// The entries of all parts, oldest first.
fn in_order(parts: Vec<Part>) -> Vec<Recalled> {
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
    entries
}

/// Reads `position, claimed_by, kind, prev, entry` of read.lua.
fn history_entry(fields: &[Vec<u8>]) -> Result<(String, Stored), BrokerError> {
    let stored = Stored {
        position: position(&fields[0])?,
        prev: position(&fields[3])?,
        kind: EntryKind::of(&text(&fields[2])),
        raw: fields[4].clone(),
    };
    Ok((text(&fields[1]), stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Position {
        Position { ms, n: 0 }
    }

    fn part(name: &str, chain: &[(u64, u64)]) -> Part {
        let stored = |(position, prev): &(u64, u64)| Stored {
            position: at(*position),
            prev: at(*prev),
            kind: EntryKind::Notification,
            raw: vec![],
        };
        Part {
            audience: Audience::Topic(name.into()),
            entries: chain.iter().map(|link| ("bff".into(), stored(link))).collect(),
            prev: chain.first().map(|(_, prev)| at(*prev)),
            tail: None,
        }
    }

    fn empty() -> Reading {
        Reading {
            epoch: "e".into(),
            first: at(5),
            last: at(90),
            now_ms: 100,
            reached: None,
            unreadable: 0,
            parts: vec![],
        }
    }

    fn read_up_to(reached: Option<u64>, since: (&str, u64), parts: Vec<Part>) -> History {
        let since = Cursor { epoch: since.0.into(), position: at(since.1) };
        let reading = Reading { reached: reached.map(at), parts, ..empty() };
        let from = reading.beginning(&since);
        reading.since(&since, from, &Retention::default())
    }

    fn read(since: (&str, u64), parts: Vec<Part>) -> History {
        read_up_to(None, since, parts)
    }

    fn positions(history: &History) -> Vec<u64> {
        history.entries.iter().map(|recalled| recalled.stored.position.ms).collect()
    }

    /// Why something of which topic is gone.
    fn gaps(history: &History) -> Vec<(GapReason, Option<&str>)> {
        history.gaps.iter().map(|gap| (gap.reason, gap.audience.as_ref().and_then(Audience::name))).collect()
    }

    #[test]
    fn entries_of_all_parts_come_in_the_order_of_the_sequence() {
        let parts = || vec![part("a", &[(20, 10), (40, 20)]), part("b", &[(30, 0)])];
        let history = read(("e", 10), parts());
        assert_eq!(positions(&history), [20, 30, 40]);
        assert_eq!((history.ended, history.reached.position, gaps(&history)), (true, at(90), vec![]));
        let history = read_up_to(Some(40), ("e", 10), parts());
        assert_eq!((history.ended, history.reached.position), (false, at(40)));
    }

    #[test]
    fn a_missing_entry_is_a_gap_of_its_audience_also_when_nothing_is_left() {
        let trimmed = |name| vec![(GapReason::Trimmed, Some(name))];
        let whole = part("b", &[(30, 0)]);
        assert_eq!(gaps(&read(("e", 10), vec![part("a", &[(40, 20)]), whole])), trimmed("a"));
        let emptied = Part { tail: Some(at(40)), ..part("a", &[]) };
        assert_eq!(gaps(&read(("e", 10), vec![emptied])), trimmed("a"));
        let nothing_new = Part { tail: Some(at(10)), ..part("a", &[]) };
        assert_eq!(gaps(&read(("e", 10), vec![nothing_new])), []);
        let not_given = Part { prev: Some(at(40)), ..part("a", &[]) };
        assert_eq!(gaps(&read_up_to(Some(20), ("e", 10), vec![not_given])), trimmed("a"));
    }

    #[test]
    fn a_cursor_of_another_epoch_begins_before_this_one() {
        let history = read(("old", 70), vec![part("a", &[(40, 20)])]);
        assert_eq!(gaps(&history), [(GapReason::Epoch, None)]);
        assert!(history.from.position == at(5) && history.from.epoch == "e");
        assert_eq!(
            read(("old", 3), vec![]).from.position,
            at(3),
            "what is older and was kept is still given"
        );
    }

    #[test]
    fn a_cursor_that_cannot_be_read_gets_all_that_there_is() {
        let reading = Reading { parts: vec![part("a", &[(40, 20)])], ..empty() };
        let since = Cursor::unreadable();
        let from = reading.beginning(&since);
        let history = reading.since(&since, from, &Retention::default());
        assert_eq!((from, gaps(&history)), (Position::ZERO, vec![(GapReason::Unreadable, None)]));
    }

    #[test]
    fn age_reports_a_gap_only_where_no_stream_is_left() {
        let since = Cursor { epoch: "e".into(), position: at(10) };
        let now_ms = 10 + 24 * 60 * 60 * 1_000 + 1;
        let gaps = |now_ms, last, tail: Option<u64>| {
            let parts = vec![Part { tail: tail.map(at), ..part("a", &[]) }];
            let reading = Reading { last: at(last), now_ms, parts, ..empty() };
            reading.since(&since, at(10), &Retention::default()).gaps.len()
        };
        assert_eq!(gaps(now_ms, 11, None), 1);
        assert_eq!(gaps(now_ms - 1, 11, None), 0);
        assert_eq!(gaps(now_ms, 10, None), 0, "nothing was given out since");
        assert_eq!(gaps(now_ms, 11, Some(9)), 0, "its stream ends before the cursor");
    }
}
