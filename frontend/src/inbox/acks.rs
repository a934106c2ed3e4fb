use std::collections::VecDeque;

use carillon_protocol::ClientMessage;
use carillon_protocol::limits::ADVANCE_MAX_IDS;

/// Acknowledgements wait this long for more of them.
pub const ACK_AFTER_MS: u64 = 200;
/// More than this do not wait: the oldest is let go, and is acknowledged when it is read.
pub const ACKS_WAITING_MAX_IDS: usize = 500;
/// What was acknowledged this short before a connection broke may not have arrived: it is said again.
pub const ACK_AGAIN_MS: u64 = 60_000;

/// The messages from other users that this page shows and the server has to know of.
#[derive(Clone, Debug, Default)]
pub struct Acks {
    waiting: VecDeque<String>,
    due_ms: Option<u64>,
    /// What was said lately, and when.
    said: VecDeque<(u64, String)>,
}

impl Acks {
    /// A message is on the screen.
    pub(super) fn shown(&mut self, now_ms: u64, id: &str) {
        if self.waiting.len() == ACKS_WAITING_MAX_IDS {
            self.waiting.pop_front();
        }
        self.waiting.push_back(id.to_owned());
        self.due_ms.get_or_insert(now_ms + ACK_AFTER_MS);
    }

    /// There is a new connection.
    pub(super) fn welcomed(&mut self, now_ms: u64) {
        let said = std::mem::take(&mut self.said);
        let lately = said.into_iter().filter(|(at_ms, _)| now_ms < at_ms + ACK_AGAIN_MS);
        for (_, id) in lately {
            self.shown(now_ms, &id);
        }
    }

    /// What to say by now on a connection that is live.
    pub(super) fn frames(&mut self, now_ms: u64) -> Vec<ClientMessage> {
        let mut frames = Vec::new();
        if self.due_ms.is_none_or(|due_ms| now_ms < due_ms) {
            return frames;
        }
        self.due_ms = None;
        while !self.waiting.is_empty() {
            let ids: Vec<_> = self.waiting.drain(..self.waiting.len().min(ADVANCE_MAX_IDS)).collect();
            self.said.extend(ids.iter().map(|id| (now_ms, id.clone())));
            frames.push(ClientMessage::Ack { ids });
        }
        let too_many = self.said.len().saturating_sub(ACKS_WAITING_MAX_IDS);
        self.said.drain(..too_many);
        frames
    }

    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        self.due_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(acks: &mut Acks, now_ms: u64) -> Vec<usize> {
        let frames = acks.frames(now_ms).into_iter().map(|frame| match frame {
            ClientMessage::Ack { ids } => ids.len(),
            other => panic!("{other:?}"),
        });
        frames.collect()
    }

    #[test]
    fn gathers_what_comes_together_and_is_bounded() {
        let mut acks = Acks::default();
        for n in 0..130 {
            acks.shown(n, "m");
        }
        assert_eq!(said(&mut acks, ACK_AFTER_MS - 1), [0; 0]);
        assert_eq!(acks.wake_at_ms(), Some(ACK_AFTER_MS));
        assert_eq!(said(&mut acks, ACK_AFTER_MS), [64, 64, 2]);
        assert_eq!((said(&mut acks, 9_999), acks.wake_at_ms()), (vec![], None));
        for _ in 0..10_000 {
            acks.shown(20_000, "m");
        }
        assert_eq!(said(&mut acks, 30_000), [64, 64, 64, 64, 64, 64, 64, 52]);
    }

    #[test]
    fn says_again_what_may_have_been_lost() {
        let mut acks = Acks::default();
        acks.shown(0, "old");
        said(&mut acks, 1_000);
        acks.shown(ACK_AGAIN_MS, "new");
        said(&mut acks, ACK_AGAIN_MS + 900);
        acks.welcomed(ACK_AGAIN_MS + 1_000);
        let frames = acks.frames(ACK_AGAIN_MS + 2_000);
        assert_eq!(
            frames.iter().map(ClientMessage::to_json).collect::<Vec<_>>(),
            [r#"{"type":"ack","ids":["new"]}"#]
        );
    }
}
