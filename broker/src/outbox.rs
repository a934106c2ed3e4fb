//! Messages to the application behind the service. They are bounded in number, and leave in order for each line, at least
//! once. Any replica retries them for a day; then they go to a dead list, and their sender is notified.

use std::sync::LazyLock;

use carillon_protocol::Audience;
use redis::{FromRedisValue, Script};

use crate::limits::{
    OUTBOX_ANONYMOUS_MAX, OUTBOX_KEEP_MS, OUTBOX_LEASE_MS, OUTBOX_LINE_MAX, OUTBOX_MAX, OUTBOX_PAUSE_MAX_MS,
    OUTBOX_SILENT_MAX, OUTBOX_USER_MAX,
};
use crate::{Broker, BrokerError, DeadList, Lease};

/// The reason with which a message to the application is in the dead list.
pub const UNDELIVERABLE: &str = "undeliverable";

/// A message to the application that a replica has taken, under a lease of [`OUTBOX_LEASE_MS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The session or user that it is from. The messages of a line leave one after the other.
    pub line: Audience,
    /// Names the message, in every attempt.
    pub id: String,
    /// The number of this attempt, from 1. Names the lease, together with the line and the id.
    pub attempt: u32,
    /// Attempts of the line in a row without success, with this one: all messages of a line pause together.
    pub failures: u32,
    /// Attempts in a row whose replica fell silent.
    pub silent: u32,
    /// How long the message has waited, in milliseconds.
    pub waited_ms: u64,
    /// The message as it was added.
    pub message: Vec<u8>,
}

impl Outgoing {
    /// Returns why the message must not be tried again; `None` where it may be.
    pub fn is_over(&self) -> Option<String> {
        if self.silent >= OUTBOX_SILENT_MAX {
            return Some(format!("{OUTBOX_SILENT_MAX} replicas in a row fell silent over it"));
        }
        // A message that waited while no replica ran is tried all the same.
        let is_old = self.waited_ms >= OUTBOX_KEEP_MS && self.failures > 1;
        is_old.then(|| format!("{} attempts in a day, and none arrived", self.attempt - 1))
    }
}

/// The sender of a message to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker<'a> {
    /// A signed-in user, who may have [`OUTBOX_USER_MAX`] messages waiting in all lines together.
    User(&'a str),
    /// A sender who is not signed in, with a session or without. All of these together may have [`OUTBOX_ANONYMOUS_MAX`]
    /// messages waiting.
    Anonymous,
}

/// How a message is given up.
#[derive(Clone, Copy, Debug)]
pub struct GivenUp<'a> {
    /// The replica that gives it up.
    pub replica: &'a str,
    /// Why, for the dead list.
    pub detail: &'a str,
    /// Whether the application answered, so that the line's next message need not pause.
    pub answered: bool,
    /// The notification to the sender: an entry of the list.
    pub notice: &'a str,
}

/// Why a message was not added.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OutboxError {
    /// As many messages wait as allowed.
    #[error("{OUTBOX_MAX} messages wait already")]
    Full,
    /// As many messages of people who are not signed in wait as allowed, all together.
    #[error("{OUTBOX_ANONYMOUS_MAX} messages of people who are not signed in wait already")]
    AnonymousFull,
    /// As many messages of this user wait as allowed, in all lines together.
    #[error("{OUTBOX_USER_MAX} messages of this user wait already")]
    UserFull,
    /// As many messages of this line wait as allowed.
    #[error("{OUTBOX_LINE_MAX} messages of this line wait already")]
    LineFull,
    /// An error of Redis.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    let parts = [
        include_str!("history/keep.lua"),
        "local prefix = string.match(KEYS[1], '^(.*)outbox$')\n",
        include_str!("dead/dead.lua"),
        include_str!("outbox/outbox.lua"),
    ];
    Script::new(&parts.concat())
});

impl Broker {
    /// Adds a message to the end of a line. A message that waits already under this id is not added again.
    ///
    /// # Errors
    /// [`OutboxError::Full`] at [`OUTBOX_MAX`], [`OutboxError::AnonymousFull`] at [`OUTBOX_ANONYMOUS_MAX`],
    /// [`OutboxError::UserFull`] at [`OUTBOX_USER_MAX`], [`OutboxError::LineFull`] at [`OUTBOX_LINE_MAX`].
    pub async fn send_out(
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

    /// Takes the first messages of at most `lines` lines that have been due longest. The caller has to give up a message
    /// that [is over](Outgoing::is_over). Messages that were taken while the answer was lost are due again after the lease.
    pub async fn take_outgoing(&self, lines: usize) -> Result<Vec<Outgoing>, BrokerError> {
        let numbers = [lines as u64, OUTBOX_LEASE_MS, OUTBOX_PAUSE_MAX_MS].map(|number| number.to_string());
        let clock = self.0.call_time();
        let args: Vec<_> = numbers.iter().chain([&clock]).map(|arg| arg.as_bytes()).collect();
        let taken: Vec<Vec<u8>> = self.outbox_verb("take", &args).await?;
        let messages = taken.chunks_exact(7).map(|fields| {
            outgoing(fields).ok_or_else(|| {
                BrokerError::Refused("the outbox holds something that we did not write".to_owned())
            })
        });
        messages.collect()
    }

    /// Removes a message that has arrived: the next message of its line is due. After an error the message will be sent
    /// again.
    pub async fn outgoing_done(&self, outgoing: &Outgoing) -> Result<Lease, BrokerError> {
        self.outgoing_verb("done", outgoing, &[]).await
    }

    /// Postpones a message that has not arrived: it is due again after so many milliseconds, at most
    /// [`OUTBOX_PAUSE_MAX_MS`], and its line waits for it. After an error it is due again after the lease.
    pub async fn postpone_outgoing(&self, outgoing: &Outgoing, pause_ms: u64) -> Result<Lease, BrokerError> {
        self.outgoing_verb("postpone", outgoing, &[&pause_ms.min(OUTBOX_PAUSE_MAX_MS).to_string()]).await
    }

    /// Gives up a message: it goes to the dead list as [`UNDELIVERABLE`], its sender is notified, and the next message of
    /// its line is due. After an error the message will be sent again.
    pub async fn give_up_outgoing(
        &self,
        outgoing: &Outgoing,
        how: GivenUp<'_>,
    ) -> Result<Lease, BrokerError> {
        let GivenUp { replica, detail, answered, notice } = how;
        let answered = if answered { "1" } else { "" };
        let channel = self.0.names().channel();
        self.outgoing_verb("give_up", outgoing, &[replica, detail, answered, notice, &channel]).await
    }

    /// Runs a verb of outbox.lua.
    async fn outbox_verb<T: FromRedisValue>(&self, verb: &str, args: &[&[u8]]) -> Result<T, BrokerError> {
        let names = self.0.names();
        let mut call = SCRIPT.key(names.outbox());
        call.key(names.outbox_part("messages"))
            .key(names.outbox_part("attempts"))
            .key(names.dead(DeadList::Outbox))
            .key(names.list());
        call.arg(verb).arg(args);
        self.0.eval(&call).await
    }

    /// Runs a verb of outbox.lua about a message that was taken.
    async fn outgoing_verb(&self, verb: &str, of: &Outgoing, args: &[&str]) -> Result<Lease, BrokerError> {
        let (line, attempt) = (of.line.to_string(), of.attempt.to_string());
        let taken = [line.as_str(), &of.id, &attempt];
        let args: Vec<_> = taken.iter().chain(args).map(|arg| arg.as_bytes()).collect();
        Ok(Lease::from_flag(self.outbox_verb(verb, &args).await?))
    }
}

/// Reads the seven fields that outbox.lua returns of a message.
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
