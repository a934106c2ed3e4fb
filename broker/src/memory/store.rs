use std::collections::{BTreeMap, HashSet, VecDeque};

use carillon_protocol::{Audience, Position};

use crate::history::Part;
use crate::jobs::memory::Jobs;
use crate::ledger::Ledger;
use crate::limits::{
    BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, DEAD_MAX_ENTRIES, DEAD_RAW_MAX_BYTES, HISTORY_MAX_ENTRIES,
    IDS_KEEP_MS, IDS_MAX, READ_MAX_BYTES, history_age_ms,
};
use crate::outbox::memory::Outbox;
use crate::presence::memory::People;
use crate::{Dead, FanOut, Fanout, Kind, State, Stored, heard_as};

/// What Redis would keep. A clone of it is what an earlier state is restored from.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) epoch: String,
    pub(crate) first: Position,
    pub(crate) last: Position,
    /// The next entry to be claimed is in front.
    pub(crate) list: VecDeque<Vec<u8>>,
    pub(crate) ids: [HashSet<String>; 2],
    pub(crate) ids_since_ms: u64,
    pub(crate) histories: BTreeMap<Audience, Kept>,
    pub(crate) dead: VecDeque<Dead>,
    pub(crate) states: BTreeMap<String, State>,
    pub(crate) ledger: Ledger,
    pub(crate) people: People,
    pub(crate) revocations: BTreeMap<String, u64>,
    pub(crate) session_key: Option<[u8; 32]>,
    /// Each with the millisecond in which it is free again.
    pub(crate) used: BTreeMap<String, u64>,
    pub(super) jobs: Jobs,
    pub(super) outbox: Outbox,
}

#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub(crate) entries: VecDeque<(String, Stored)>,
    tail: Position,
}

/// One step that appends, atomic as a script is: who takes it and when, and what is published at its end.
pub(crate) struct Step<'a> {
    pub(crate) appender: &'a str,
    pub(crate) fan_out: FanOut,
    pub(crate) now_ms: u64,
    pub(crate) fanouts: Vec<Fanout>,
}

impl Store {
    pub(crate) fn new(now_ms: u64, last: Position) -> Self {
        let first = last.next(now_ms);
        Self {
            epoch: format!("{:016x}", fastrand::u64(..)),
            first,
            last: first,
            list: VecDeque::new(),
            ids: [HashSet::new(), HashSet::new()],
            ids_since_ms: now_ms,
            histories: BTreeMap::new(),
            dead: VecDeque::new(),
            states: BTreeMap::new(),
            ledger: Ledger::default(),
            people: People::default(),
            revocations: BTreeMap::new(),
            session_key: None,
            used: BTreeMap::new(),
            jobs: Jobs::default(),
            outbox: Outbox::default(),
        }
    }

    pub(crate) fn bury(&mut self, dead: &Dead) {
        let raw = dead.raw[..dead.raw.len().min(DEAD_RAW_MAX_BYTES)].to_vec();
        self.dead.push_back(Dead { raw, ..dead.clone() });
        if self.dead.len() > DEAD_MAX_ENTRIES {
            self.dead.pop_front();
        }
    }

    pub(crate) fn take_batch(&mut self) -> Vec<Vec<u8>> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX_ENTRIES && bytes < BATCH_MAX_BYTES {
            let Some(raw) = self.list.pop_front() else { break };
            bytes += raw.len();
            batch.push(raw);
        }
        batch
    }

    pub(crate) fn rotate_ids(&mut self, now_ms: u64) {
        if now_ms >= self.ids_since_ms + IDS_KEEP_MS || self.ids[0].len() as u64 >= IDS_MAX / 2 {
            self.ids.swap(0, 1);
            self.ids[0].clear();
            self.ids_since_ms = now_ms;
        }
    }

    /// What append.lua does: gives an entry its position and, where its audience has one, its place in
    /// history, and gathers what is published.
    pub(crate) fn append(
        &mut self,
        step: &mut Step<'_>,
        kind: Kind,
        audience: &Audience,
        raw: Vec<u8>,
    ) -> Stored {
        let age_ms = history_age_ms(audience).filter(|_| step.fan_out == FanOut::All);
        let prev = age_ms.and_then(|_| self.histories.get(audience)).map_or(Position::ZERO, |kept| kept.tail);
        self.last = self.last.max(prev).next(step.now_ms);
        let stored = Stored { position: self.last, prev, kind, raw };
        if let Some(age_ms) = age_ms {
            let oldest_ms = step.now_ms.saturating_sub(age_ms);
            self.histories.entry(audience.clone()).or_default().push(step.appender, &stored, oldest_ms);
        }
        if step.fan_out == FanOut::All {
            let audience = heard_as(audience);
            match step.fanouts.last_mut().filter(|fanout| fanout.audience == audience) {
                Some(fanout) => fanout.entries.push(stored.clone()),
                None => step.fanouts.push(Fanout {
                    audience,
                    epoch: self.epoch.clone(),
                    claimed_by: step.appender.to_owned(),
                    entries: vec![stored.clone()],
                }),
            }
        }
        stored
    }

    /// What read.lua does: several histories as one, and how far that reaches if that is not the end.
    pub(crate) fn read(
        &self,
        audiences: &[Audience],
        from: Position,
        limit: usize,
    ) -> (Option<Position>, Vec<Part>) {
        let after = |audience| {
            let entries = self.histories.get(audience).map(|kept| {
                let start = kept.entries.partition_point(|(_, entry)| entry.position <= from);
                kept.entries.range(start..)
            });
            entries.into_iter().flatten().peekable()
        };
        let mut ahead: Vec<_> = audiences.iter().map(after).collect();
        let mut parts: Vec<Part> = audiences
            .iter()
            .zip(&mut ahead)
            .map(|(audience, ahead)| {
                let prev = ahead.peek().map(|(_, entry)| entry.prev);
                let kept = self.histories.get(audience).filter(|_| prev.is_none());
                let tail = kept.map(|kept| kept.tail);
                Part { audience: audience.clone(), entries: Vec::new(), prev, tail }
            })
            .collect();
        let (mut count, mut bytes, mut given) = (0, 0, from);
        loop {
            let heads =
                ahead.iter_mut().enumerate().filter_map(|(at, ahead)| Some((ahead.peek()?.1.position, at)));
            let Some((position, at)) = heads.min() else { return (None, parts) };
            let size = ahead[at].peek().map_or(0, |(_, entry)| entry.raw.len());
            if count == limit || (count > 0 && bytes + size > READ_MAX_BYTES) {
                return (Some(given), parts);
            }
            parts[at].entries.extend(ahead[at].next().cloned());
            (count, bytes, given) = (count + 1, bytes + size, position);
        }
    }
}

impl Kept {
    fn push(&mut self, appender: &str, stored: &Stored, oldest_ms: u64) {
        self.entries.push_back((appender.to_owned(), stored.clone()));
        self.tail = stored.position;
        let is_old = |(_, oldest): &(String, Stored)| oldest.position.ms < oldest_ms;
        while self.entries.len() > HISTORY_MAX_ENTRIES || self.entries.front().is_some_and(is_old) {
            self.entries.pop_front();
        }
    }
}
