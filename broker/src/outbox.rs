//! Messages that must leave for the application behind the service: bounded, in order for each line, at least
//! once, tried again by whoever is there for a day, and then buried where people can find them, while the sender is told.

use std::sync::LazyLock;

use carillon_protocol::Audience;
use redis::Script;

use crate::engine::Engine;
use crate::jobs::Held;
use crate::limits::{
    OUTBOX_ANONYMOUS_MAX, OUTBOX_KEEP_MS, OUTBOX_LEASE_MS, OUTBOX_LINE_MAX, OUTBOX_MAX, OUTBOX_PAUSE_MAX_MS,
    OUTBOX_SILENT_MAX, OUTBOX_USER_MAX,
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
    /// Attempts of the line in a row without success, with this one: a line pauses as one.
    pub failures: u32,
    /// Attempts in a row whose replica fell silent.
    pub silent: u32,
    /// For how long the message has waited, in milliseconds.
    pub waited_ms: u64,
    /// The message as it was added.
    pub message: Vec<u8>,
}

impl Outgoing {
    /// Why it is not to be tried any more, if it is not.
    #[must_use]
    pub fn is_over(&self) -> Option<String> {
        if self.silent >= OUTBOX_SILENT_MAX {
            return Some(format!("{OUTBOX_SILENT_MAX} replicas in a row fell silent over it"));
        }
        // A message that waited while no replica was there is tried all the same.
        let is_old = self.waited_ms >= OUTBOX_KEEP_MS && self.failures > 1;
        is_old.then(|| format!("{} attempts in a day, and none arrived", self.attempt - 1))
    }
}

/// Who says something to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker<'a> {
    /// A signed-in user, who may have [`OUTBOX_USER_MAX`] messages waiting in all lines together.
    User(&'a str),
    /// Somebody who is not signed in, with a session or without. All of these together may have
    /// [`OUTBOX_ANONYMOUS_MAX`] messages waiting.
    Anonymous,
}

/// How a message is given up.
#[derive(Clone, Copy, Debug)]
pub struct GivenUp<'a> {
    /// The replica that does it.
    pub replica: &'a str,
    /// Why, for the dead list.
    pub detail: &'a str,
    /// Whether the application answered, so that the line's next message need not pause.
    pub answered: bool,
    /// What the sender is told: an entry of the list.
    pub notice: &'a str,
}

/// Why a message was not added.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OutboxError {
    /// As many wait as there may be.
    #[error("{OUTBOX_MAX} messages wait already")]
    Full,
    /// As many of people who are not signed in wait as there may be.
    #[error("{OUTBOX_ANONYMOUS_MAX} messages of people who are not signed in wait already")]
    AnonymousFull,
    /// As many of this user wait as there may be, in all lines together.
    #[error("{OUTBOX_USER_MAX} messages of this user wait already")]
    UserFull,
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
    /// [`OutboxError::Full`] at [`OUTBOX_MAX`], [`OutboxError::AnonymousFull`] at [`OUTBOX_ANONYMOUS_MAX`],
    /// [`OutboxError::UserFull`] at [`OUTBOX_USER_MAX`], [`OutboxError::LineFull`] at [`OUTBOX_LINE_MAX`];
    /// [`BrokerError::Away`] leaves open whether it was done.
    pub async fn send_out(
        &self,
        line: &Audience,
        id: &str,
        message: &[u8],
        by: Speaker<'_>,
    ) -> Result<(), OutboxError> {
        self.0.send_out(line, id, message, by).await
    }

    /// Takes the first messages of at most `lines` lines that have been due longest. One that [is
    /// over](Outgoing::is_over) is to be given up.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done; if it was, they are due again after the lease.
    pub async fn take_outgoing(&self, lines: usize) -> Result<Vec<Outgoing>, BrokerError> {
        self.0.take_outgoing(lines).await
    }

    /// It has arrived: the next message of its line is due.
    ///
    /// # Errors
    /// When Redis is away or refuses; the message will then be sent again.
    pub async fn outgoing_done(&self, outgoing: &Outgoing) -> Result<Held, BrokerError> {
        self.0.outgoing_done(outgoing).await
    }

    /// It has not arrived, and is due again after so many milliseconds, at most [`OUTBOX_PAUSE_MAX_MS`]; its line
    /// waits for it.
    ///
    /// # Errors
    /// When Redis is away or refuses; it is then due after the lease.
    pub async fn postpone_outgoing(&self, outgoing: &Outgoing, pause_ms: u64) -> Result<Held, BrokerError> {
        self.0.postpone_outgoing(outgoing, pause_ms).await
    }

    /// It never will: it goes to the dead list as [`UNDELIVERABLE`], its sender is told, and the next message of its line
    /// is due.
    ///
    /// # Errors
    /// When Redis is away or refuses; the message will then be sent again.
    pub async fn give_up_outgoing(&self, outgoing: &Outgoing, how: GivenUp<'_>) -> Result<Held, BrokerError> {
        self.0.give_up_outgoing(outgoing, how).await
    }
}

/// The reason with which a message that could not be sent out is in the dead list.
pub const UNDELIVERABLE: &str = "undeliverable";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    let parts = [
        include_str!("history/keep.lua"),
        "local prefix = string.match(KEYS[1], '^(.*)outbox$')\n",
        include_str!("dead/dead.lua"),
        include_str!("outbox/outbox.lua"),
    ];
    Script::new(&parts.concat())
});

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
            .key(names.dead(crate::DeadList::Outbox))
            .key(names.list());
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

    async fn send_out(
        &self,
        line: &Audience,
        id: &str,
        message: &[u8],
        by: Speaker<'_>,
    ) -> Result<(), OutboxError> {
        let line = line.to_string();
        let (sender, of_sender) = match by {
            Speaker::User(user) => (format!("of:{}", Audience::User(user.to_owned())), OUTBOX_USER_MAX),
            Speaker::Anonymous => ("anonymous".to_owned(), OUTBOX_ANONYMOUS_MAX),
        };
        let most = [OUTBOX_MAX, OUTBOX_LINE_MAX, of_sender].map(|most| most.to_string());
        let rest = [&most[0], &most[1], &sender, &most[2]].map(|text| text.as_bytes());
        let args = [&[line.as_bytes(), id.as_bytes(), message], &rest[..]].concat();
        match self.outbox_verb::<String>("add", &args).await?.as_str() {
            "full" => Err(OutboxError::Full),
            "sender_full" if by == Speaker::Anonymous => Err(OutboxError::AnonymousFull),
            "sender_full" => Err(OutboxError::UserFull),
            "line_full" => Err(OutboxError::LineFull),
            _ => Ok(()),
        }
    }

    async fn take_outgoing(&self, lines: usize) -> Result<Vec<Outgoing>, BrokerError> {
        let numbers = [lines as u64, OUTBOX_LEASE_MS, OUTBOX_PAUSE_MAX_MS].map(|number| number.to_string());
        let clock = self.call_time();
        let args: Vec<_> = numbers.iter().chain([&clock]).map(|arg| arg.as_bytes()).collect();
        let taken: Vec<Vec<u8>> = self.outbox_verb("take", &args).await?;
        let outgoing = taken.chunks_exact(7).map(|fields| {
            outgoing(fields).ok_or_else(|| {
                BrokerError::Refused("the outbox holds something that we did not write".to_owned())
            })
        });
        outgoing.collect()
    }

    async fn outgoing_done(&self, of: &Outgoing) -> Result<Held, BrokerError> {
        self.outgoing_verb("done", of, &[]).await
    }

    async fn postpone_outgoing(&self, of: &Outgoing, pause_ms: u64) -> Result<Held, BrokerError> {
        self.outgoing_verb("postpone", of, &[&pause_ms.min(OUTBOX_PAUSE_MAX_MS).to_string()]).await
    }

    async fn give_up_outgoing(&self, of: &Outgoing, how: GivenUp<'_>) -> Result<Held, BrokerError> {
        let GivenUp { replica, detail, answered, notice } = how;
        let answered = if answered { "1" } else { "" };
        let channel = self.names().channel();
        let args = [replica, detail, answered, notice, &channel];
        self.outgoing_verb("give_up", of, &args).await
    }
}

/// From the seven fields of the script.
fn outgoing(fields: &[Vec<u8>]) -> Option<Outgoing> {
    let text = |at: usize| std::str::from_utf8(&fields[at]).ok();
    Some(Outgoing {
        line: text(0)?.parse().ok()?,
        id: text(1)?.to_owned(),
        attempt: text(2)?.parse().ok()?,
        failures: text(3)?.parse().ok()?,
        silent: text(4)?.parse().ok()?,
        waited_ms: text(5)?.parse().ok()?,
        message: fields[6].clone(),
    })
}
