use carillon_protocol::{Audience, ClientEvent, CloseCode, GapReason, Phase, ServerMessage, Welcome};

use crate::Refused;

/// Maximum records of each kind; a test that comes near it reads too much at once.
const RECORD_MAX: usize = 500_000;

/// A notification that a reader got for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its id.
    pub id: String,
    /// Its text.
    pub body: String,
    /// The replica that claimed it.
    pub claimed_by: String,
    /// The cursor after it.
    pub cursor: String,
}

/// Everything that a reader received, each kind in its order.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Every notification once.
    pub received: Vec<Received>,
    /// The number of repeated notifications, which are not shown.
    pub repeated: usize,
    /// The connection's phases, each when it changed.
    pub phases: Vec<Phase>,
    /// The first frame of each connection.
    pub welcomes: Vec<Welcome>,
    /// The gaps, with their audiences.
    pub gaps: Vec<(GapReason, Option<Audience>)>,
    /// The pauses of goodbyes, in milliseconds.
    pub goodbyes: Vec<u64>,
    /// The code of each close; `None` where the connection was lost.
    pub closes: Vec<Option<CloseCode>>,
    /// Attempts to connect that were refused, or found no server.
    pub refusals: Vec<Refused>,
    /// Frames of the kinds `state`, `raw`, `status`, `read` and `presence`.
    pub messages: Vec<ServerMessage>,
    /// The refusals of the server in mid-stream: code and detail.
    pub errors: Vec<(String, String)>,
    /// The ids and topics of those refusals.
    pub refused: Vec<String>,
    /// Unreadable frames. A test should find none.
    pub unreadable: Vec<String>,
}

impl Record {
    /// Returns the ids in the order in which they arrived.
    pub fn ids(&self) -> Vec<&str> {
        self.received.iter().map(|one| one.id.as_str()).collect()
    }

    /// Returns the replica of the current connection, when it is live.
    pub fn live_on(&self) -> Option<&str> {
        match self.phases.last()? {
            Phase::Live { replica, .. } => Some(replica),
            _ => None,
        }
    }

    pub(crate) fn add(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Welcome(welcome) => push(&mut self.welcomes, welcome),
            ClientEvent::Notification(delivery) => push(
                &mut self.received,
                Received {
                    id: delivery.notification.id,
                    body: delivery.notification.body,
                    claimed_by: delivery.claimed_by,
                    cursor: delivery.cursor,
                },
            ),
            ClientEvent::Repeated => self.repeated += 1,
            ClientEvent::Gap { reason, audience } => push(&mut self.gaps, (reason, audience)),
            ClientEvent::Goodbye(pause_ms) => push(&mut self.goodbyes, pause_ms),
            ClientEvent::Error { code, detail, about } => {
                push(&mut self.errors, (code, detail));
                about.into_iter().for_each(|about| push(&mut self.refused, about));
            }
            ClientEvent::Message(message) => push(&mut self.messages, *message),
            ClientEvent::Unreadable(error) => push(&mut self.unreadable, error),
            ClientEvent::Nothing => {}
        }
    }

    pub(crate) fn add_close(&mut self, code: Option<CloseCode>) {
        push(&mut self.closes, code);
    }

    pub(crate) fn add_refusal(&mut self, refused: Refused) {
        push(&mut self.refusals, refused);
    }

    pub(crate) fn add_phase(&mut self, phase: &Phase) {
        if self.phases.last() != Some(phase) {
            push(&mut self.phases, phase.clone());
        }
    }
}

fn push<T>(list: &mut Vec<T>, item: T) {
    assert!(list.len() < RECORD_MAX, "a reader keeps no more than {RECORD_MAX} of a kind");
    list.push(item);
}
