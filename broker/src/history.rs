//! The history of each audience: the entries that were claimed for it, which are read forward from a cursor or back from
//! one.

mod reading;

use std::sync::LazyLock;

use carillon_protocol::{Audience, Cursor, GapReason, Position};
use redis::Script;

use crate::engine::sequence_script;
use crate::limits::{READ_MAX_BYTES, READ_MAX_ENTRIES};
use crate::{Broker, BrokerError, Stored};
use reading::{Answer, Reading};

/// The entries that a read of several histories found, in the order of the one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Oldest first.
    pub entries: Vec<Recalled>,
    /// Where the read began: at the reader's cursor, or at an earlier one in the current epoch.
    pub from: Cursor,
    /// The cursor of a reader that has received all these entries.
    pub reached: Cursor,
    /// Whether `reached` was the end at the time of the read.
    pub ended: bool,
    /// What is lost between the reader's cursor and `reached`.
    pub gaps: Vec<Gap>,
    /// Entries that cannot be read, and were skipped.
    pub unreadable: u64,
}

/// A part of history that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why it is lost.
    pub reason: GapReason,
    /// The audience that it was for; `None` for all of them.
    pub audience: Option<Audience>,
}

/// An entry from history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// The audience that it is for.
    pub audience: Audience,
    /// The replica that claimed it.
    pub claimed_by: String,
    /// The entry.
    pub stored: Stored,
}

/// The direction of a read.
#[derive(Clone, Copy)]
enum Toward {
    Newer,
    Older,
}

static READ: LazyLock<Script> = LazyLock::new(|| sequence_script(&[include_str!("history/read.lua")]));

impl Broker {
    /// Returns the current epoch and the last position that was given out.
    pub async fn tail(&self) -> Result<Cursor, BrokerError> {
        let reading = self.reading(&[], Toward::Newer, Position::ZERO, (1, READ_MAX_BYTES)).await?;
        Ok(Cursor { epoch: reading.epoch, position: reading.last })
    }

    /// Reads forward from a cursor: 1 to `limit` entries, and never more than [`READ_MAX_ENTRIES`].
    pub async fn history(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
    ) -> Result<History, BrokerError> {
        self.history_within(audiences, since, limit, READ_MAX_BYTES).await
    }

    /// [`Broker::history`] with a bound in bytes; one entry always fits.
    pub async fn history_within(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
        max_bytes: usize,
    ) -> Result<History, BrokerError> {
        let bounds = (limit.clamp(1, READ_MAX_ENTRIES), max_bytes);
        let mut reading = self.reading(audiences, Toward::Newer, since.position, bounds).await?;
        let from = reading.beginning(since);
        if from != since.position {
            reading = self.reading(audiences, Toward::Newer, from, bounds).await?;
        }
        Ok(reading.since(since, from, &self.0.settings().retention))
    }

    /// Reads back from a cursor, or from the newest entry: 1 to `limit` entries, and never more than [`READ_MAX_ENTRIES`].
    /// In the answer, `reached` is the cursor for the page before, and `ended` is true on the first page of all.
    pub async fn history_before(
        &self,
        audiences: &[Audience],
        before: Option<&Cursor>,
        limit: usize,
    ) -> Result<History, BrokerError> {
        let bounds = (limit.clamp(1, READ_MAX_ENTRIES), READ_MAX_BYTES);
        let read = async |position| self.reading(audiences, Toward::Older, position, bounds).await;
        let mut from = before.map_or(Position::MAX, |before| before.position);
        let mut reading = read(from).await?;
        if let Some(before) = before {
            let begins = reading.beginning(before);
            if begins != from {
                from = begins;
                reading = read(from).await?;
            }
        }
        Ok(reading.before(from))
    }

    /// Runs read.lua: reads the histories beyond a position, at most so many entries and bytes.
    async fn reading(
        &self,
        audiences: &[Audience],
        toward: Toward,
        beyond: Position,
        (entries, bytes): (usize, usize),
    ) -> Result<Reading, BrokerError> {
        let engine = &self.0;
        let mut call = READ.key(engine.names().sequence());
        for audience in audiences {
            call.key(engine.names().history(audience));
        }
        let direction = match toward {
            Toward::Newer => "after",
            Toward::Older => "before",
        };
        call.arg(engine.call_time()).arg(direction).arg(beyond.to_string()).arg(entries).arg(bytes);
        let answer: Answer = if audiences.is_empty() {
            engine.eval_read(&call).await?
        } else {
            engine.eval_page(&call).await?
        };
        Reading::new(audiences, answer)
    }
}
