use std::collections::VecDeque;

use crate::command::Ack;
use crate::limits::{ACK_AFTER_MS, ACK_AGAIN_MS, ACKS_WAITING_MAX_IDS, ADVANCE_MAX_IDS};
use crate::{ClientMessage, Named};

/// Messages from other users that this reader shows and has to acknowledge. Many are sent in one message, so that a reader
/// that was away for long stays within its rate limit.
#[derive(Clone, Debug, Default)]
pub struct Acks {
    waiting: VecDeque<Named>,
    due_ms: Option<u64>,
    /// Acknowledgements that were sent lately, with their times.
    sent: VecDeque<(u64, Named)>,
}

impl Acks {
    /// Records that a message is on the screen.
    pub fn shown(&mut self, now_ms: u64, message: Named) {
        if self.waiting.len() == ACKS_WAITING_MAX_IDS {
            self.waiting.pop_front();
        }
        self.waiting.push_back(message);
        self.due_ms.get_or_insert(now_ms + ACK_AFTER_MS);
    }

    /// Records that a new connection was welcomed.
    pub fn welcomed(&mut self, now_ms: u64) {
        let sent = std::mem::take(&mut self.sent);
        let lately = sent.into_iter().filter(|(at_ms, _)| now_ms < at_ms + ACK_AGAIN_MS);
        for (_, message) in lately {
            self.shown(now_ms, message);
        }
    }

    /// Returns the messages that are due on a live connection.
    pub fn frames(&mut self, now_ms: u64) -> Vec<ClientMessage> {
        let mut frames = Vec::new();
        if self.due_ms.is_none_or(|due_ms| now_ms < due_ms) {
            return frames;
        }
        self.due_ms = None;
        while !self.waiting.is_empty() {
            let ids: Vec<_> = self.waiting.drain(..self.waiting.len().min(ADVANCE_MAX_IDS)).collect();
            self.sent.extend(ids.iter().map(|id| (now_ms, id.clone())));
            frames.push(ClientMessage::Ack(Ack { ids }));
        }
        let too_many = self.sent.len().saturating_sub(ACKS_WAITING_MAX_IDS);
        self.sent.drain(..too_many);
        frames
    }

    /// Returns when the next message is due.
    #[must_use]
    pub fn wake_at_ms(&self) -> Option<u64> {
        self.due_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(id: &str) -> Named {
        Named::Id(id.to_owned())
    }

    fn sent(acks: &mut Acks, now_ms: u64) -> Vec<usize> {
        let frames = acks.frames(now_ms).into_iter().map(|frame| match frame {
            ClientMessage::Ack(Ack { ids }) => ids.len(),
            other => panic!("{other:?}"),
        });
        frames.collect()
    }

    #[test]
    fn gathers_acknowledgements_up_to_a_bound() {
        let mut acks = Acks::default();
        for n in 0..130 {
            acks.shown(n, named("m"));
        }
        assert_eq!(sent(&mut acks, ACK_AFTER_MS - 1), [0; 0]);
        assert_eq!(acks.wake_at_ms(), Some(ACK_AFTER_MS));
        assert_eq!(sent(&mut acks, ACK_AFTER_MS), [64, 64, 2]);
        assert_eq!((sent(&mut acks, 9_999), acks.wake_at_ms()), (vec![], None));
        for _ in 0..10_000 {
            acks.shown(20_000, named("m"));
        }
        assert_eq!(sent(&mut acks, 30_000), [64, 64, 64, 64, 64, 64, 64, 52]);
    }

    #[test]
    fn repeats_acknowledgements_that_may_be_lost() {
        let mut acks = Acks::default();
        acks.shown(0, named("old"));
        sent(&mut acks, 1_000);
        acks.shown(ACK_AGAIN_MS, named("new"));
        sent(&mut acks, ACK_AGAIN_MS + 900);
        acks.welcomed(ACK_AGAIN_MS + 1_000);
        let frames = acks.frames(ACK_AGAIN_MS + 2_000);
        assert_eq!(
            frames.iter().map(ClientMessage::to_json).collect::<Vec<_>>(),
            [r#"{"type":"ack","ids":["new"]}"#]
        );
    }
}
