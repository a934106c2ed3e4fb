//! The ledger: how far each message between users has come, up to where each user has read, and the trace that shows why a
//! message may not have arrived. Broadcasts are not in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use carillon_protocol::limits::WAITING_MAX_ENTRIES;
use carillon_protocol::{Audience, Cursor, Status};
use redis::Script;

use crate::engine::{appending_script, sequence_script};
use crate::limits::{ADVANCE_MAX_IDS, STORED_PERIOD_MS, WRITINGS_MAX};
use crate::{Broker, BrokerError, FanOut};

/// An entry that a user sends: a message to another user, which has a status, or an entry to a topic, which has none.
#[derive(Clone, Debug)]
pub struct NewMessage<'a> {
    /// Its id. The same id from the same sender to the same receiver names the same message.
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

/// The outcome of [`Broker::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The message is stored, and in the list.
    Stored,
    /// The message was stored before, and has this status.
    Repeated(Status),
    /// The id is that of another message.
    Conflict,
    /// Too many entries wait in the list: nothing was stored.
    Full,
    /// The sender has stored as many bytes as a day allows: nothing was stored.
    Quota {
        /// Milliseconds until the next day of this sender begins.
        retry_ms: u64,
    },
}

/// Names a message. Two senders may use the same id.
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
    /// How many replicas received it when it was published; 0 where its addressee had no connection on any of them.
    pub routed: Option<u64>,
    /// How many connections it was written to.
    pub written: u64,
    /// The first [`WRITINGS_MAX`] of them.
    pub writings: Vec<Writing>,
    /// The replica through which it was first acknowledged.
    pub acknowledged_by: Option<String>,
    /// Why it is in the dead list; `None` where it is not.
    pub buried: Option<String>,
}

/// A record that a message was written to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The replica that wrote it.
    pub replica: String,
    /// The connection that it was written to.
    pub connection: String,
}

static SEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("ledger/send.lua")));
static ADVANCE: LazyLock<Script> = LazyLock::new(|| {
    appending_script(&[include_str!("ledger/status.lua"), include_str!("ledger/advance.lua")])
});
static WRITTEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("ledger/written.lua")));
static MARK_READ: LazyLock<Script> = LazyLock::new(|| {
    appending_script(&[include_str!("ledger/position.lua"), include_str!("ledger/mark_read.lua")])
});
static READ_POSITION: LazyLock<Script> = LazyLock::new(|| {
    sequence_script(&[include_str!("ledger/position.lua"), include_str!("ledger/read_position.lua")])
});

impl Broker {
    /// Stores what a user sends and puts it into the list, in one step. Repeating it is harmless.
    pub async fn send(&self, message: &NewMessage<'_>) -> Result<Accepted, BrokerError> {
        let NewMessage { id, from, to, entry, accepted_by } = message;
        let (names, settings) = (self.0.names(), self.0.settings());
        let mut call = SEND.key(names.list());
        call.key(names.ids("a")).key(names.ids("b")).key(names.stored_bytes(from));
        if let Audience::User(_) = to {
            call.key(names.message(from, id));
        }
        call.arg(from).arg(to.name().unwrap_or_default()).arg(entry).arg(accepted_by);
        call.arg(settings.retention.user.age_ms()).arg(WAITING_MAX_ENTRIES).arg(names.channel());
        call.arg(remembered(from, id)).arg(settings.stored_bytes_per_day).arg(STORED_PERIOD_MS);
        let (what, detail): (String, String) = self.0.eval(&call).await?;
        match what.as_str() {
            "stored" => Ok(Accepted::Stored),
            "repeated" => Ok(Accepted::Repeated(detail.parse().map_err(BrokerError::Refused)?)),
            "conflict" => Ok(Accepted::Conflict),
            // A counter that has just expired leaves nothing to wait for.
            "quota" => Ok(Accepted::Quota { retry_ms: detail.parse().unwrap_or_default() }),
            _ => Ok(Accepted::Full),
        }
    }

    /// Raises messages to `user` to [`Status::Delivered`] or [`Status::Read`], notifies their senders, and returns how many
    /// changed. Messages to another user, unknown messages, and those that have come as far already stay as they are. Of
    /// the messages, the first [`ADVANCE_MAX_IDS`] count. Repeating it is harmless.
    pub async fn advance(
        &self,
        user: &str,
        messages: &[MessageRef],
        status: Status,
        replica: &str,
    ) -> Result<u64, BrokerError> {
        let messages = &messages[..messages.len().min(ADVANCE_MAX_IDS)];
        if messages.is_empty() {
            return Ok(0);
        }
        let mut call = self.0.appending(&ADVANCE, replica, FanOut::All);
        for MessageRef { from, id } in messages {
            call.key(self.0.names().message(from, id));
        }
        let ids: Vec<_> = messages.iter().map(|message| message.id.as_str()).collect();
        call.arg(user).arg(status.as_str()).arg(ids);
        let (changed, faults): (u64, Vec<String>) = self.0.eval(&call).await?;
        log_faults(&faults);
        Ok(changed)
    }

    /// Records for the trace that a message was written to a connection.
    pub async fn record_written(
        &self,
        message: &MessageRef,
        replica: &str,
        connection: &str,
    ) -> Result<(), BrokerError> {
        let mut call = WRITTEN.key(self.0.names().message(&message.from, &message.id));
        call.arg(replica).arg(connection).arg(WRITINGS_MAX);
        self.0.eval::<u64>(&call).await.map(|_| ())
    }

    /// Returns a message, for as long as its receiver's history is kept.
    pub async fn message(&self, message: &MessageRef) -> Result<Option<Message>, BrokerError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.0.names().message(&message.from, &message.id));
        let fields: HashMap<String, String> = self.0.read(&command).await?;
        if fields.is_empty() { Ok(None) } else { read_message(&fields).map(Some) }
    }

    /// Records that a user has read everything up to a cursor, notifies all their devices, and returns whether that was
    /// further than before. A cursor of another epoch counts at most as the beginning of the present one. Repeating it is
    /// harmless.
    pub async fn mark_read(&self, user: &str, cursor: &Cursor, replica: &str) -> Result<bool, BrokerError> {
        let mut call = self.0.appending(&MARK_READ, replica, FanOut::All);
        call.key(self.0.names().read_position(user));
        call.arg(user).arg(&cursor.epoch).arg(cursor.position.to_string());
        let (moved, faults): (u8, Vec<String>) = self.0.eval(&call).await?;
        log_faults(&faults);
        Ok(moved == 1)
    }

    /// Returns up to where a user has read, as a cursor of the present epoch.
    pub async fn read_position(&self, user: &str) -> Result<Option<Cursor>, BrokerError> {
        let mut call = READ_POSITION.key(self.0.names().sequence());
        call.key(self.0.names().read_position(user)).arg(self.0.call_time());
        let cursor: String = self.0.eval_read(&call).await?;
        Ok(cursor.parse().ok())
    }
}

/// The form in which a sender and an id are remembered. It begins with a length, so that no two pairs look the same, whatever
/// is in a name.
pub(crate) fn remembered(from: &str, id: &str) -> String {
    format!("{}:{from}{id}", from.len())
}

/// Logs the commands that Redis refused in a script after its first write. Nothing depends on them.
fn log_faults(faults: &[String]) {
    for fault in faults {
        tracing::warn!(%fault, "Redis refused a part of a step of the ledger");
    }
}

/// Reads the fields that send.lua, claim.lua, advance.lua and written.lua write.
fn read_message(fields: &HashMap<String, String>) -> Result<Message, BrokerError> {
    let text = |name: &str| fields.get(name).cloned();
    let number = |name: &str| fields.get(name).and_then(|value| value.parse().ok());
    let needed = |name: &str| {
        text(name).ok_or_else(|| BrokerError::Refused(format!("a message of the ledger lacks '{name}'")))
    };
    let at = |status: Status| Some((status, number(status.as_str())?));
    let all = [Status::None, Status::Sent, Status::Delivered, Status::Read];
    let writing = |n: usize| {
        let line = fields.get(&format!("written:{n}"))?;
        let mut words = line.splitn(3, ' ');
        Some(Writing {
            at_ms: words.next()?.parse().ok()?,
            replica: words.next()?.to_owned(),
            connection: words.next()?.to_owned(),
        })
    };
    Ok(Message {
        from: needed("from")?,
        to: needed("to")?,
        status: needed("status")?.parse().map_err(BrokerError::Refused)?,
        at_ms: all.into_iter().filter_map(at).collect::<BTreeMap<_, _>>(),
        accepted_by: needed("accepted_by")?,
        claimed_by: text("claimed_by"),
        routed: number("routed"),
        written: number("written").unwrap_or_default(),
        writings: (1..=WRITINGS_MAX).filter_map(writing).collect(),
        acknowledged_by: text("acknowledged_by"),
        buried: text("buried"),
    })
}
