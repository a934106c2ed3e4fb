use std::collections::VecDeque;
use std::sync::Arc;

use carillon_protocol::sent::Send;
use carillon_protocol::{ClientMessage, Status, quoted};
use serde_json::value::RawValue;

/// Of more messages than this, the older ones show no further ticks.
pub const SENT_MAX_MESSAGES: usize = 50;
/// Maximum messages that wait for a connection: a server limits the messages in a row.
pub const UNSENT_MAX_MESSAGES: usize = 20;

/// A message that this page sent to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its slot on the screen.
    pub slot: u64,
    /// Its id, generated here, so that a repeat is the same message.
    pub id: String,
    /// The recipient.
    pub to: String,
    /// The text.
    pub text: String,
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its status; `None` until the server has confirmed it.
    pub status: Option<Status>,
    /// The reason of the server's refusal.
    pub failed: Option<String>,
}

impl Message {
    /// Whether the server has not answered yet.
    pub fn waits(&self) -> bool {
        self.status.is_none() && self.failed.is_none()
    }

    fn frame(&self) -> Option<ClientMessage> {
        let [id, to, text] = [&self.id, &self.to, &self.text].map(|text| quoted(text));
        let json = format!(r#"{{"id":{id},"to":{{"user":{to}}},"body":{text}}}"#);
        Some(ClientMessage::Send(Send { notification: RawValue::from_string(json).ok()? }))
    }
}

/// The messages that this page sent, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    messages: VecDeque<Arc<Message>>,
}

impl Sent {
    /// All of them, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.iter()
    }

    /// The message at a place on the screen.
    pub fn at(&self, slot: u64) -> Option<&Arc<Message>> {
        self.messages.iter().find(|message| message.slot == slot)
    }

    /// Whether the maximum of messages waits.
    pub fn is_full(&self) -> bool {
        self.messages.iter().filter(|message| message.waits()).count() >= UNSENT_MAX_MESSAGES
    }

    /// Whether this page sent it.
    pub fn knows(&self, id: &str) -> bool {
        self.messages.iter().any(|message| message.id == id)
    }

    pub(super) fn push(&mut self, message: Message) -> Arc<Message> {
        if self.messages.len() == SENT_MAX_MESSAGES {
            self.messages.pop_front();
        }
        let message = Arc::new(message);
        self.messages.push_back(Arc::clone(&message));
        message
    }

    /// Raises the status of a message, or confirms it.
    pub(super) fn advance(&mut self, id: &str, status: Status) -> Option<Arc<Message>> {
        self.change(id, |message| {
            message.failed = None;
            message.status = message.status.max(Some(status));
        })
    }

    /// Records a refusal. A message that the server has confirmed cannot be refused.
    pub(super) fn fail(&mut self, id: &str, why: &str) -> Option<Arc<Message>> {
        self.change(id, |message| {
            if message.status.is_none() {
                message.failed = Some(why.to_owned());
            }
        })
    }

    /// Retries a refused message.
    pub(super) fn retry(&mut self, slot: u64) -> Option<Arc<Message>> {
        let id = self.at(slot)?.id.clone();
        self.change(&id, |message| message.failed = None)
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Message)) -> Option<Arc<Message>> {
        let message = self.messages.iter_mut().find(|message| message.id == id)?;
        change(Arc::make_mut(message));
        Some(Arc::clone(message))
    }

    /// Returns the frames for a new connection: all messages that the server has not confirmed.
    pub(super) fn frames(&self) -> Vec<ClientMessage> {
        self.messages.iter().filter(|message| message.waits()).filter_map(|message| message.frame()).collect()
    }

    pub(super) fn frame(message: &Message) -> Option<ClientMessage> {
        message.frame()
    }
}
