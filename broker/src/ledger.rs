//! The ledger: how far each message between people has come, up to where each user has read, and why a
//! message may not have arrived. Broadcasts are not in it.

mod redis;

use std::collections::BTreeMap;

use carillon_protocol::{Cursor, Status};

use crate::{Broker, BrokerError};

pub(crate) use redis::Scripts;

/// A message of one user to another, to be stored and sent.
#[derive(Clone, Debug)]
pub struct NewMessage<'a> {
    /// Its id: the same one again from the same sender to the same receiver is the same message.
    pub id: &'a str,
    /// The user who sends it.
    pub from: &'a str,
    /// The user whom it is for.
    pub to: &'a str,
    /// The entry for the list, which says the same.
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
    /// Stores a message between people and puts it into the list, in one step. Doing it again is harmless.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done.
    pub async fn accept(&self, message: &NewMessage<'_>) -> Result<Accepted, BrokerError> {
        self.0.accept(message).await
    }

    /// Raises messages to `user` to [`Status::Delivered`] or [`Status::Read`], tells their senders, and
    /// returns how many that changed. Messages to somebody else, unknown ones, and those that have come as
    /// far already stay as they are. Of the ids, the first [`crate::limits::ADVANCE_MAX_IDS`] count.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done; again is harmless.
    pub async fn advance(
        &self,
        user: &str,
        ids: &[String],
        status: Status,
        replica: &str,
    ) -> Result<u64, BrokerError> {
        let ids = &ids[..ids.len().min(crate::limits::ADVANCE_MAX_IDS)];
        if ids.is_empty() {
            return Ok(0);
        }
        self.0.advance(user, ids, status, replica).await
    }

    /// Notes for the trace that a message was written to a connection.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn note_written(&self, id: &str, replica: &str, connection: &str) -> Result<(), BrokerError> {
        self.0.note_written(id, replica, connection).await
    }

    /// A message, for as long as its receiver's history is kept.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn message(&self, id: &str) -> Result<Option<Message>, BrokerError> {
        self.0.message(id).await
    }

    /// Notes that a user has read everything up to a cursor, tells all their devices, and returns whether
    /// that was further than before. A cursor of another data set is passed over.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done; again is harmless.
    pub async fn mark_read(&self, user: &str, cursor: &Cursor, replica: &str) -> Result<bool, BrokerError> {
        self.0.mark_read(user, cursor, replica).await
    }

    /// Up to where a user has read.
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
