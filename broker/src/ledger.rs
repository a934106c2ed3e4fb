//! The ledger: how far each message between people has come, up to where each user has read, and why a
//! message may not have arrived. Broadcasts are not in it.

mod redis;

use std::collections::BTreeMap;

use carillon_protocol::{Audience, Cursor, Status};

use crate::{Broker, BrokerError};

/// What a user sends: a message to another user, which has a status, or something to a topic, which has none.
#[derive(Clone, Debug)]
pub struct NewMessage<'a> {
    /// Its id: the same one again from the same sender to the same receiver is the same message.
    pub id: &'a str,
    /// The user who sends it.
    pub from: &'a str,
    /// The user or topic that it is for.
    pub to: &'a Audience,
    /// The entry for the list, which has the same fields.
    pub entry: &'a [u8],
    /// The replica that accepts it.
    pub accepted_by: &'a str,
}

/// What became of a message that was to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is stored, and in the list.
    Stored,
    /// It was stored before, and has come as far as this.
    Repeated(Status),
    /// The id is that of another message.
    Conflict,
    /// Too many entries wait in the list: nothing was stored.
    Full,
    /// The sender has had as many bytes stored as a day allows: nothing was stored.
    Quota {
        /// Milliseconds until the next day of this sender begins.
        retry_ms: u64,
    },
}

/// Names a message: ids are their sender's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageRef {
    /// The user who sent it.
    pub from: String,
    /// Its id.
    pub id: String,
}

/// A message in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The user who sent it.
    pub from: String,
    /// The user whom it is for.
    pub to: String,
    /// How far it has come.
    pub status: Status,
    /// When it came there, in milliseconds since 1970.
    pub at_ms: BTreeMap<Status, u64>,
    /// The replica that accepted it.
    pub accepted_by: String,
    /// The replica that claimed it.
    pub claimed_by: Option<String>,
    /// How many replicas heard that it was there; 0 while its addressee had no connection anywhere.
    pub routed: Option<u64>,
    /// How many times it was written to a connection.
    pub written: u64,
    /// The first [`crate::limits::WRITINGS_MAX`] of them.
    pub writings: Vec<Writing>,
    /// The replica through which it was first acknowledged.
    pub acknowledged_by: Option<String>,
    /// Why it is in the dead list, where it is.
    pub buried: Option<String>,
}

/// That a message was written to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// By which replica.
    pub replica: String,
    /// To which connection.
    pub connection: String,
}

impl Broker {
    /// Stores what a user sends and puts it into the list, in one step. Doing it again is harmless.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done.
    pub async fn send(&self, message: &NewMessage<'_>) -> Result<Accepted, BrokerError> {
        self.0.send(message).await
    }

    /// Raises messages to `user` to [`Status::Delivered`] or [`Status::Read`], tells their senders, and
    /// returns how many that changed. Messages to somebody else, unknown ones, and those that have come as
    /// far already stay as they are. Of the messages, the first [`crate::limits::ADVANCE_MAX_IDS`] count.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done; again is harmless.
    pub async fn advance(
        &self,
        user: &str,
        messages: &[MessageRef],
        status: Status,
        replica: &str,
    ) -> Result<u64, BrokerError> {
        let messages = &messages[..messages.len().min(crate::limits::ADVANCE_MAX_IDS)];
        if messages.is_empty() {
            return Ok(0);
        }
        self.0.advance(user, messages, status, replica).await
    }

    /// Records for the trace that a message was written to a connection.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn record_written(
        &self,
        message: &MessageRef,
        replica: &str,
        connection: &str,
    ) -> Result<(), BrokerError> {
        self.0.record_written(message, replica, connection).await
    }

    /// A message, for as long as its receiver's history is kept.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn message(&self, message: &MessageRef) -> Result<Option<Message>, BrokerError> {
        self.0.message(message).await
    }

    /// Records that a user has read everything up to a cursor, tells all their devices, and returns whether
    /// that was further than before. Of a cursor of another epoch counts what this one began with.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done; again is harmless.
    pub async fn mark_read(&self, user: &str, cursor: &Cursor, replica: &str) -> Result<bool, BrokerError> {
        self.0.mark_read(user, cursor, replica).await
    }

    /// Up to where a user has read, as a cursor of the present epoch.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn read_position(&self, user: &str) -> Result<Option<Cursor>, BrokerError> {
        self.0.read_position(user).await
    }
}

/// How a sender and an id are remembered. With a length, so that no two pairs look the same, whatever is in a name.
pub(crate) fn remembered(from: &str, id: &str) -> String {
    format!("{}:{from}{id}", from.len())
}
