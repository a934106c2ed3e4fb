use carillon_protocol::{Audience, CloseCode, GapReason, Heard, Phase, ServerMessage, Welcome};

use crate::Refused;

/// Entries kept of each kind; a test that comes near it reads too much at once.
const RECORD_MAX: usize = 500_000;

/// A notification that a reader got for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its id.
    pub id: String,
    /// Its text.
    pub body: String,
    /// The replica that won the race for it.
    pub claimed_by: String,
    /// Where the reader stood after it.
    pub cursor: String,
}

/// All that a reader saw, each kind in its order.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Every notification once.
    pub received: Vec<Received>,
    /// How many came again, and were not for showing.
    pub repeated: usize,
    /// The connection's phases, each when it changed.
    pub phases: Vec<Phase>,
    /// The first frame of each connection.
    pub welcomes: Vec<Welcome>,
    /// Gaps that were announced, and of which audience.
    pub gaps: Vec<(GapReason, Option<Audience>)>,
    /// Pauses that goodbyes asked for, in milliseconds.
    pub goodbyes: Vec<u64>,
    /// The code of each close; none where the connection just ended.
    pub closes: Vec<Option<CloseCode>>,
    /// Attempts to connect that were refused, or found nobody.
    pub refusals: Vec<Refused>,
    /// Frames of the kinds `state`, `raw`, `status`, `read` and `presence`.
    pub messages: Vec<ServerMessage>,
    /// What the server refused in mid-stream: code and detail.
    pub errors: Vec<(String, String)>,
    /// The ids and topics that those named.
    pub refused: Vec<String>,
    /// Frames that could not be read. A test should find none.
    pub unreadable: Vec<String>,
}

impl Record {
    /// The ids in the order in which they came.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        self.received.iter().map(|one| one.id.as_str()).collect()
    }

    /// The replica of the connection of this moment, when it is live.
    #[must_use]
    pub fn live_on(&self) -> Option<&str> {
        match self.phases.last()? {
            Phase::Live { replica, .. } => Some(replica),
            _ => None,
        }
    }

    pub(crate) fn note(&mut self, heard: Heard) {
        match heard {
            Heard::Welcome(welcome) => push(&mut self.welcomes, welcome),
            Heard::Notification(delivery) => push(
                &mut self.received,
                Received {
                    id: delivery.notification.id,
                    body: delivery.notification.body,
                    claimed_by: delivery.claimed_by,
                    cursor: delivery.cursor,
                },
            ),
            Heard::Repeated => self.repeated += 1,
            Heard::Gap { reason, audience } => push(&mut self.gaps, (reason, audience)),
            Heard::Goodbye(pause_ms) => push(&mut self.goodbyes, pause_ms),
            Heard::Error { code, detail, about } => {
                push(&mut self.errors, (code, detail));
                about.into_iter().for_each(|about| push(&mut self.refused, about));
            }
            Heard::Message(message) => push(&mut self.messages, *message),
            Heard::Unreadable(error) => push(&mut self.unreadable, error),
            Heard::Nothing => {}
        }
    }

    pub(crate) fn note_close(&mut self, code: Option<CloseCode>) {
        push(&mut self.closes, code);
    }

    pub(crate) fn note_refusal(&mut self, refused: Refused) {
        push(&mut self.refusals, refused);
    }

    pub(crate) fn note_phase(&mut self, phase: &Phase) {
        if self.phases.last() != Some(phase) {
            push(&mut self.phases, phase.clone());
        }
    }
}

fn push<T>(list: &mut Vec<T>, item: T) {
    assert!(list.len() < RECORD_MAX, "a reader keeps no more than {RECORD_MAX} of a kind");
    list.push(item);
}
