//! History: what was claimed for each audience, read on from a cursor or back from one.

use std::sync::LazyLock;

use carillon_protocol::{Audience, Cursor, GapReason, Position};
use redis::Script;

use crate::engine::{Engine, sequence_script, text};
use crate::limits::{READ_MAX_BYTES, READ_MAX_ENTRIES};
use crate::{Broker, BrokerError, Kind, Retention, Stored};

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
    /// What is gone between the reader's cursor and `reached`.
    pub gaps: Vec<Gap>,
    /// Entries that cannot be read, and were stepped over.
    pub unreadable: u64,
}

/// That something of history is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// Of which audience; `None` is all of them.
    pub audience: Option<Audience>,
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
struct Part {
    audience: Audience,
    /// Beyond the asked position, nearest first, with who appended each.
    entries: Vec<(String, Stored)>,
    /// What the first entry later than the asked position names as the one before it, whether or not it
    /// is among `entries`; `None` where there is no such entry.
    prev: Option<Position>,
    /// The stream's last position where nothing later than the asked position is held; else `None`.
    tail: Option<Position>,
}

/// What one atomic step read.
struct Reading {
    epoch: String,
    /// The epoch's first position.
    first: Position,
    /// The last position given out.
    last: Position,
    now_ms: u64,
    /// How far the parts reach together, if that is not the end. Every entry up to here is in them.
    reached: Option<Position>,
    unreadable: u64,
    parts: Vec<Part>,
}

/// In which direction a read goes.
#[derive(Clone, Copy)]
enum Toward {
    Newer,
    Older,
}

static READ: LazyLock<Script> = LazyLock::new(|| sequence_script(&[include_str!("history/read.lua")]));

impl Broker {
    /// The current epoch and the last position that was given out.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn tail(&self) -> Result<Cursor, BrokerError> {
        let reading = self.0.reading(&[], Toward::Newer, Position::ZERO, (1, READ_MAX_BYTES)).await?;
        Ok(Cursor { epoch: reading.epoch, position: reading.last })
    }

    /// Reads on from a cursor, from 1 to `limit` entries and never more than [`READ_MAX_ENTRIES`].
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn history(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
    ) -> Result<History, BrokerError> {
        self.history_within(audiences, since, limit, READ_MAX_BYTES).await
    }

    /// [`Broker::history`] with a bound in bytes; one entry always fits.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn history_within(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
        max_bytes: usize,
    ) -> Result<History, BrokerError> {
        let bounds = (limit.clamp(1, READ_MAX_ENTRIES), max_bytes);
        let mut reading = self.0.reading(audiences, Toward::Newer, since.position, bounds).await?;
        let from = begin(since, &reading.epoch, reading.first);
        if from != since.position {
            reading = self.0.reading(audiences, Toward::Newer, from, bounds).await?;
        }
        Ok(merge(&self.0.settings().retention, since, from, reading))
    }

    /// Reads back from a cursor, or from the newest entry: from 1 to `limit` entries, at most [`READ_MAX_ENTRIES`]. In
    /// what it returns, `reached` is where the page before begins, and `ended` says that there is none.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn history_before(
        &self,
        audiences: &[Audience],
        before: Option<&Cursor>,
        limit: usize,
    ) -> Result<History, BrokerError> {
        let bounds = (limit.clamp(1, READ_MAX_ENTRIES), READ_MAX_BYTES);
        let read = async |position| self.0.reading(audiences, Toward::Older, position, bounds).await;
        let mut from = before.map_or(Position::MAX, |before| before.position);
        let mut reading = read(from).await?;
        if let Some(before) = before {
            let begins = begin(before, &reading.epoch, reading.first);
            if begins != from {
                from = begins;
                reading = read(from).await?;
            }
        }
        let Reading { epoch, last, reached, unreadable, parts, .. } = reading;
        let cursor = |position| Cursor { epoch: epoch.clone(), position };
        let entries = in_order(parts);
        let oldest = entries.first().map_or(from.min(last), |oldest| oldest.stored.position);
        Ok(History {
            entries,
            from: cursor(from.min(last)),
            reached: cursor(oldest),
            ended: reached.is_none(),
            gaps: vec![],
            unreadable,
        })
    }
}

impl Engine {
    async fn reading(
        &self,
        audiences: &[Audience],
        toward: Toward,
        beyond: Position,
        (entries, bytes): (usize, usize),
    ) -> Result<Reading, BrokerError> {
        let mut call = READ.key(self.names().sequence());
        for audience in audiences {
            call.key(self.names().history(audience));
        }
        let direction = match toward {
            Toward::Newer => "after",
            Toward::Older => "before",
        };
        call.arg(self.call_time()).arg(direction).arg(beyond.to_string()).arg(entries).arg(bytes);
        type Rows = Vec<(String, String, Vec<Vec<u8>>)>;
        type Answer = (String, String, String, u64, String, u64, Rows);
        let (epoch, first, last, now_ms, reached, unreadable, parts): Answer =
            if audiences.is_empty() { self.eval_read(&call).await? } else { self.eval_page(&call).await? };
        let parts = audiences
            .iter()
            .zip(parts)
            .map(|(audience, (prev, tail, entries))| {
                let entries = entries.chunks_exact(5).map(history_entry).collect::<Result<_, _>>()?;
                let (prev, tail) = (known(&prev)?, known(&tail)?);
                Ok(Part { audience: audience.clone(), entries, prev, tail })
            })
            .collect::<Result<_, BrokerError>>()?;
        let (first, last) = (position(first.as_bytes())?, position(last.as_bytes())?);
        Ok(Reading { epoch, first, last, now_ms, reached: known(&reached)?, unreadable, parts })
    }
}

/// Where a reader with a cursor begins in the current epoch. A position of an older data set may
/// stand later than entries of this one, so such a reader begins no later than the epoch itself;
/// what it has seen already it knows by id.
fn begin(since: &Cursor, epoch: &str, first: Position) -> Position {
    if since.epoch == epoch { since.position } else { since.position.min(first) }
}

/// Puts the parts of a read that began at `from` in order.
fn merge(retention: &Retention, since: &Cursor, from: Position, reading: Reading) -> History {
    let Reading { epoch, last, now_ms, reached, parts, unreadable, .. } = reading;
    let gaps = if since.is_unreadable() {
        vec![Gap { reason: GapReason::Unreadable, audience: None }]
    } else if since.epoch != epoch {
        vec![Gap { reason: GapReason::Epoch, audience: None }]
    } else {
        let trimmed = parts.iter().filter(|part| is_trimmed(retention, part, from, last, now_ms));
        trimmed
            .map(|part| Gap { reason: GapReason::Trimmed, audience: Some(part.audience.clone()) })
            .collect()
    };
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

/// Whether an audience's history no longer reaches back to `from`. Each entry names the one before it, so where a stream is
/// left, its chain tells, however old the cursor is. Where none is left, something may be gone that was older than its age.
fn is_trimmed(retention: &Retention, part: &Part, from: Position, last: Position, now_ms: u64) -> bool {
    let Some(keep) = retention.of(&part.audience) else { return false };
    match part.prev.or(part.tail) {
        Some(before) => before > from,
        // Where nothing was given out since, nothing can be gone.
        None => from < last && from.ms < now_ms.saturating_sub(keep.age_ms()),
    }
}

/// From `position, claimed_by, kind, prev, entry` of read.lua.
fn history_entry(fields: &[Vec<u8>]) -> Result<(String, Stored), BrokerError> {
    let (at, prev) = (position(&fields[0])?, position(&fields[3])?);
    let stored = Stored { position: at, prev, kind: Kind::parse(&text(&fields[2])), raw: fields[4].clone() };
    Ok((text(&fields[1]), stored))
}

pub(crate) fn position(bytes: &[u8]) -> Result<Position, BrokerError> {
    let text = String::from_utf8_lossy(bytes);
    text.parse().map_err(|_| {
        BrokerError::Refused(format!("'{text}' is not a position; does something else write to our keys?"))
    })
}

/// A position, or an empty text where there is none.
pub(crate) fn known(text: &str) -> Result<Option<Position>, BrokerError> {
    if text.is_empty() { Ok(None) } else { position(text.as_bytes()).map(Some) }
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
            unreadable: 0,
            parts,
        };
        merge(&Retention::default(), &since, begin(&since, "e", at(5)), reading)
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
        let reading = |parts| Reading {
            epoch: "e".into(),
            first: at(5),
            last: at(90),
            now_ms: 100,
            reached: None,
            unreadable: 0,
            parts,
        };
        let since = Cursor::unreadable();
        let from = begin(&since, "e", at(5));
        let history = merge(&Retention::default(), &since, from, reading(vec![part("a", &[(40, 20)])]));
        assert_eq!((from, gaps(&history)), (Position::ZERO, vec![(GapReason::Unreadable, None)]));
    }

    #[test]
    fn age_tells_of_a_gap_only_where_no_stream_is_left() {
        let since = Cursor { epoch: "e".into(), position: at(10) };
        let now_ms = 10 + 24 * 60 * 60 * 1_000 + 1;
        let gaps = |now_ms, last, tail: Option<u64>| {
            let reading = Reading {
                epoch: "e".into(),
                first: at(5),
                last: at(last),
                now_ms,
                reached: None,
                unreadable: 0,
                parts: vec![Part { tail: tail.map(at), ..part("a", &[]) }],
            };
            merge(&Retention::default(), &since, at(10), reading).gaps.len()
        };
        assert_eq!(gaps(now_ms, 11, None), 1);
        assert_eq!(gaps(now_ms - 1, 11, None), 0);
        assert_eq!(gaps(now_ms, 10, None), 0, "nothing was given out since");
        assert_eq!(gaps(now_ms, 11, Some(9)), 0, "its stream ends before the cursor");
    }
}
