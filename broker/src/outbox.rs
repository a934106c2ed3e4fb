//! Messages that must leave for the application behind the service: bounded, in order for each line, at least
//! once, tried again by whoever is there, and in the end buried where people can find them.

use std::sync::LazyLock;

use carillon_protocol::Audience;
use redis::Script;

use crate::engine::Engine;
use crate::jobs::Held;
use crate::limits::{
    DEAD_MAX_ENTRIES, DEAD_RAW_MAX_BYTES, OUTBOX_ATTEMPTS_MAX, OUTBOX_LEASE_MS, OUTBOX_LINE_MAX, OUTBOX_MAX,
};
use crate::{Broker, BrokerError};

/// A message on its way out, under a lease of [`OUTBOX_LEASE_MS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The session or user that it is from. The messages of a line leave one after the other.
    pub line: Audience,
    /// Names the message, the same in every attempt.
    pub id: String,
    /// The number of this attempt, from 1. Names the lease, together with line and id.
    pub attempt: u32,
    /// The message as it was added.
    pub message: Vec<u8>,
}

/// What was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// At most one message of each line.
    pub outgoing: Vec<Outgoing>,
    /// Messages that were buried instead, since the last of [`OUTBOX_ATTEMPTS_MAX`] attempts never ended.
    pub given_up: u64,
}

/// Why a message was not added.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OutboxError {
    /// As many wait as there may be.
    #[error("{OUTBOX_MAX} messages wait already")]
    Full,
    /// As many of this line wait as there may be.
    #[error("{OUTBOX_LINE_MAX} messages of this line wait already")]
    LineFull,
    /// Redis.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Broker {
    /// Adds a message to the end of a line. One that waits already under this id is not added again.
    ///
    /// # Errors
    /// [`OutboxError::Full`] at [`OUTBOX_MAX`], [`OutboxError::LineFull`] at [`OUTBOX_LINE_MAX`];
    /// [`BrokerError::Away`] leaves open whether it was done.
    pub async fn send_out(&self, line: &Audience, id: &str, message: &[u8]) -> Result<(), OutboxError> {
        self.0.send_out(line, id, message).await
    }

    /// Takes the first messages of at most `lines` lines that have been due longest.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done; if it was, they are due again after the lease.
    pub async fn take_outgoing(&self, replica: &str, lines: usize) -> Result<Due, BrokerError> {
        self.0.take_outgoing(replica, lines).await
    }

    /// It has arrived: the next message of its line is due.
    ///
    /// # Errors
    /// When Redis is away or refuses; the message will then be sent again.
    pub async fn outgoing_done(&self, outgoing: &Outgoing) -> Result<Held, BrokerError> {
        self.0.outgoing_done(outgoing).await
    }

    /// It has not arrived, and is due again after so many milliseconds; its line waits for it.
    ///
    /// # Errors
    /// When Redis is away or refuses; it is then due after the lease.
    pub async fn postpone_outgoing(&self, outgoing: &Outgoing, pause_ms: u64) -> Result<Held, BrokerError> {
        self.0.postpone_outgoing(outgoing, pause_ms).await
    }

    /// It never will: it goes to the dead list as [`UNDELIVERABLE`], and the next message of its line is due.
    ///
    /// # Errors
    /// When Redis is away or refuses; the message will then be sent again.
    pub async fn give_up_outgoing(
        &self,
        outgoing: &Outgoing,
        replica: &str,
        detail: &str,
    ) -> Result<Held, BrokerError> {
        self.0.give_up_outgoing(outgoing, replica, detail).await
    }
}

/// The reason with which a message that could not be sent out is in the dead list.
pub const UNDELIVERABLE: &str = "undeliverable";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("outbox/outbox.lua")));

impl Engine {
    async fn outbox_verb<T: redis::FromRedisValue>(
        &self,
        verb: &str,
        args: &[&[u8]],
    ) -> Result<T, BrokerError> {
        let names = self.names();
        let mut call = SCRIPT.key(names.outbox());
        call.key(names.outbox_part("messages"))
            .key(names.outbox_part("attempts"))
            .key(names.dead(crate::DeadList::Outbox));
        call.arg(verb).arg(args);
        self.eval(&call).await
    }

    /// A verb about a message that is held.
    async fn outgoing_verb(&self, verb: &str, of: &Outgoing, args: &[&str]) -> Result<Held, BrokerError> {
        let (line, attempt) = (of.line.to_string(), of.attempt.to_string());
        let held = [line.as_str(), &of.id, &attempt];
        let args: Vec<_> = held.iter().chain(args).map(|arg| arg.as_bytes()).collect();
        Ok(Held::from_flag(self.outbox_verb(verb, &args).await?))
    }

    async fn send_out(&self, line: &Audience, id: &str, message: &[u8]) -> Result<(), OutboxError> {
        let (line, most) = (line.to_string(), [OUTBOX_MAX, OUTBOX_LINE_MAX].map(|most| most.to_string()));
        let args = [line.as_bytes(), id.as_bytes(), message, most[0].as_bytes(), most[1].as_bytes()];
        match self.outbox_verb::<String>("add", &args).await?.as_str() {
            "full" => Err(OutboxError::Full),
            "line_full" => Err(OutboxError::LineFull),
            _ => Ok(()),
        }
    }

    async fn take_outgoing(&self, replica: &str, lines: usize) -> Result<Due, BrokerError> {
        let numbers = [
            lines as u64,
            OUTBOX_LEASE_MS,
            OUTBOX_ATTEMPTS_MAX.into(),
            DEAD_MAX_ENTRIES as u64,
            DEAD_RAW_MAX_BYTES as u64,
        ];
        let numbers = numbers.map(|number| number.to_string());
        let args: Vec<_> =
            [replica].into_iter().chain(numbers.iter().map(String::as_str)).map(str::as_bytes).collect();
        let (given_up, taken): (u64, Vec<Vec<u8>>) = self.outbox_verb("take", &args).await?;
        let outgoing = taken.chunks_exact(4).map(|fields| {
            outgoing(fields).ok_or_else(|| {
                BrokerError::Refused("the outbox holds something that we did not write".to_owned())
            })
        });
        Ok(Due { outgoing: outgoing.collect::<Result<_, _>>()?, given_up })
    }

    async fn outgoing_done(&self, of: &Outgoing) -> Result<Held, BrokerError> {
        self.outgoing_verb("done", of, &[]).await
    }

    async fn postpone_outgoing(&self, of: &Outgoing, pause_ms: u64) -> Result<Held, BrokerError> {
        self.outgoing_verb("postpone", of, &[&pause_ms.to_string()]).await
    }

    async fn give_up_outgoing(
        &self,
        of: &Outgoing,
        replica: &str,
        detail: &str,
    ) -> Result<Held, BrokerError> {
        let most = [DEAD_MAX_ENTRIES, DEAD_RAW_MAX_BYTES].map(|most| most.to_string());
        self.outgoing_verb("give_up", of, &[replica, detail, &most[0], &most[1]]).await
    }
}

/// From `line, id, attempt, message` of the script.
fn outgoing(fields: &[Vec<u8>]) -> Option<Outgoing> {
    let text = |at: usize| std::str::from_utf8(&fields[at]).ok();
    Some(Outgoing {
        line: text(0)?.parse().ok()?,
        id: text(1)?.to_owned(),
        attempt: text(2)?.parse().ok()?,
        message: fields[3].clone(),
    })
}
