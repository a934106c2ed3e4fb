//! What outbox.lua does, inside one process.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use carillon_protocol::Audience;

use super::{Due, OutboxError, Outgoing, UNDELIVERABLE};
use crate::jobs::Held;
use crate::limits::{OUTBOX_ATTEMPTS_MAX, OUTBOX_LEASE_MS, OUTBOX_LINE_MAX, OUTBOX_MAX};
use crate::memory::MemoryEngine;
use crate::{BrokerError, Dead};

/// The outbox of the in-memory store. What is given up goes into `dead`.
#[derive(Clone, Default)]
pub(crate) struct Outbox {
    lines: HashMap<Audience, Line>,
    ids: HashSet<String>,
    /// Lines by the moment, in milliseconds, at which each is due; the number keeps the order within one.
    due: BTreeSet<(u64, u64, Audience)>,
    given: u64,
    /// For the dead list, oldest first.
    pub(crate) dead: Vec<Dead>,
}

#[derive(Clone, Default)]
struct Line {
    /// The first to leave is in front.
    messages: VecDeque<(String, Vec<u8>)>,
    /// Of the first message.
    attempts: u32,
    /// Where it is in `due`.
    due: (u64, u64),
}

impl MemoryEngine {
    pub(crate) fn send_out(&self, line: &Audience, id: &str, message: &[u8]) -> Result<(), OutboxError> {
        self.with_outbox(|outbox, now_ms| outbox.add(line, id, message, now_ms))?
    }

    pub(crate) fn take_outgoing(&self, replica: &str, lines: usize) -> Result<Due, BrokerError> {
        self.with_outbox(|outbox, now_ms| outbox.take(replica, lines, now_ms))
    }

    pub(crate) fn outgoing_done(&self, of: &Outgoing) -> Result<Held, BrokerError> {
        self.with_outbox(|outbox, now_ms| outbox.done(of, now_ms))
    }

    pub(crate) fn postpone_outgoing(&self, of: &Outgoing, pause_ms: u64) -> Result<Held, BrokerError> {
        self.with_outbox(|outbox, now_ms| outbox.postpone(of, pause_ms, now_ms))
    }

    pub(crate) fn give_up_outgoing(
        &self,
        of: &Outgoing,
        replica: &str,
        detail: &str,
    ) -> Result<Held, BrokerError> {
        self.with_outbox(|outbox, now_ms| outbox.give_up(of, replica, detail, now_ms))
    }
}

impl Outbox {
    fn add(&mut self, line: &Audience, id: &str, message: &[u8], now_ms: u64) -> Result<(), OutboxError> {
        if self.ids.contains(id) {
            return Ok(());
        }
        if self.ids.len() >= OUTBOX_MAX {
            return Err(OutboxError::Full);
        }
        let is_new = !self.lines.contains_key(line);
        let messages = &mut self.lines.entry(line.clone()).or_default().messages;
        if messages.len() >= OUTBOX_LINE_MAX {
            return Err(OutboxError::LineFull);
        }
        messages.push_back((id.to_owned(), message.to_vec()));
        self.ids.insert(id.to_owned());
        if is_new {
            self.set_due(line, now_ms);
        }
        Ok(())
    }

    fn take(&mut self, replica: &str, lines: usize, now_ms: u64) -> Due {
        let due = self.due.iter().take_while(|(due_ms, _, _)| *due_ms <= now_ms).take(lines);
        let due: Vec<_> = due.map(|(_, _, line)| line.clone()).collect();
        let mut taken = Due { outgoing: Vec::new(), given_up: 0 };
        for line in due {
            let Some(kept) = self.lines.get_mut(&line) else { continue };
            let attempts = kept.attempts;
            if attempts >= OUTBOX_ATTEMPTS_MAX {
                let detail = format!("{attempts} attempts, and whoever made the last one fell silent");
                self.bury(&line, replica, &detail, now_ms);
                taken.given_up += 1;
            } else if let Some((id, message)) = kept.messages.front() {
                kept.attempts += 1;
                let (id, attempt, message) = (id.clone(), kept.attempts, message.clone());
                taken.outgoing.push(Outgoing { line: line.clone(), id, attempt, message });
                self.set_due(&line, now_ms + OUTBOX_LEASE_MS);
            }
        }
        taken
    }

    fn done(&mut self, of: &Outgoing, now_ms: u64) -> Held {
        self.held(of, |outbox| {
            outbox.advance(&of.line, now_ms);
        })
    }

    fn postpone(&mut self, of: &Outgoing, pause_ms: u64, now_ms: u64) -> Held {
        self.held(of, |outbox| outbox.set_due(&of.line, now_ms + pause_ms))
    }

    fn give_up(&mut self, of: &Outgoing, replica: &str, detail: &str, now_ms: u64) -> Held {
        self.held(of, |outbox| outbox.bury(&of.line, replica, detail, now_ms))
    }

    /// Does it if the attempt is the present one at the first message of its line.
    fn held(&mut self, of: &Outgoing, change: impl FnOnce(&mut Self)) -> Held {
        let first = self.lines.get(&of.line);
        let counts = first.is_some_and(|line| {
            line.attempts == of.attempt && line.messages.front().is_some_and(|(id, _)| *id == of.id)
        });
        if counts {
            change(self);
        }
        Held::from_flag(counts)
    }

    fn bury(&mut self, line: &Audience, replica: &str, detail: &str, now_ms: u64) {
        let Some(raw) = self.advance(line, now_ms) else { return };
        self.dead.push(Dead {
            reason: UNDELIVERABLE.to_owned(),
            detail: detail.to_owned(),
            claimed_by: replica.to_owned(),
            raw,
        });
    }

    /// Takes the first message out of a line; the next one is due at once.
    fn advance(&mut self, line: &Audience, now_ms: u64) -> Option<Vec<u8>> {
        let kept = self.lines.get_mut(line)?;
        let (id, message) = kept.messages.pop_front()?;
        kept.attempts = 0;
        self.ids.remove(&id);
        if kept.messages.is_empty() {
            let (due_ms, number) = kept.due;
            self.due.remove(&(due_ms, number, line.clone()));
            self.lines.remove(line);
        } else {
            self.set_due(line, now_ms);
        }
        Some(message)
    }

    fn set_due(&mut self, line: &Audience, due_ms: u64) {
        let Some(kept) = self.lines.get_mut(line) else { return };
        self.due.remove(&(kept.due.0, kept.due.1, line.clone()));
        self.given += 1;
        kept.due = (due_ms, self.given);
        self.due.insert((due_ms, self.given, line.clone()));
    }
}
