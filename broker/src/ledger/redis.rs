use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use carillon_protocol::limits::WAITING_MAX_ENTRIES;
use carillon_protocol::{Audience, Cursor, Status};
use redis::Script;

use super::{Accepted, Message, MessageRef, NewMessage, Writing, remembered};
use crate::engine::{Engine, appending_script, sequence_script};
use crate::limits::{STORED_PERIOD_MS, WRITINGS_MAX};
use crate::{BrokerError, FanOut};

static SEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("send.lua")));
static ADVANCE: LazyLock<Script> =
    LazyLock::new(|| appending_script(&[include_str!("status.lua"), include_str!("advance.lua")]));
static MARK_READ: LazyLock<Script> =
    LazyLock::new(|| appending_script(&[include_str!("position.lua"), include_str!("mark_read.lua")]));
static READ_POSITION: LazyLock<Script> =
    LazyLock::new(|| sequence_script(&[include_str!("position.lua"), include_str!("read_position.lua")]));
static WRITTEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("written.lua")));

impl Engine {
    pub(super) async fn send(&self, message: &NewMessage<'_>) -> Result<Accepted, BrokerError> {
        let NewMessage { id, from, to, entry, accepted_by } = message;
        let (names, settings) = (self.names(), self.settings());
        let mut call = SEND.key(names.list());
        call.key(names.ids("a")).key(names.ids("b")).key(names.stored_bytes(from));
        if let Audience::User(_) = to {
            call.key(names.message(from, id));
        }
        call.arg(from).arg(to.name().unwrap_or_default()).arg(entry).arg(accepted_by);
        call.arg(settings.retention.user.age_ms()).arg(WAITING_MAX_ENTRIES).arg(names.channel());
        call.arg(remembered(from, id)).arg(settings.stored_bytes_per_day).arg(STORED_PERIOD_MS);
        let (what, detail): (String, String) = self.eval(&call).await?;
        match what.as_str() {
            "stored" => Ok(Accepted::Stored),
            "repeated" => Ok(Accepted::Repeated(detail.parse().map_err(BrokerError::Refused)?)),
            "conflict" => Ok(Accepted::Conflict),
            // A counter that has just expired leaves nothing to wait for.
            "quota" => Ok(Accepted::Quota { retry_ms: detail.parse().unwrap_or_default() }),
            _ => Ok(Accepted::Full),
        }
    }

    pub(super) async fn advance(
        &self,
        user: &str,
        messages: &[MessageRef],
        status: Status,
        replica: &str,
    ) -> Result<u64, BrokerError> {
        let mut call = self.appending(&ADVANCE, replica, FanOut::All);
        for MessageRef { from, id } in messages {
            call.key(self.names().message(from, id));
        }
        let ids: Vec<_> = messages.iter().map(|message| message.id.as_str()).collect();
        call.arg(user).arg(status.as_str()).arg(ids);
        let (changed, faults): (u64, Vec<String>) = self.eval(&call).await?;
        report(&faults);
        Ok(changed)
    }

    pub(super) async fn record_written(
        &self,
        message: &MessageRef,
        replica: &str,
        connection: &str,
    ) -> Result<(), BrokerError> {
        let mut call = WRITTEN.key(self.names().message(&message.from, &message.id));
        call.arg(replica).arg(connection).arg(WRITINGS_MAX);
        self.eval::<u64>(&call).await.map(|_| ())
    }

    pub(super) async fn message(&self, message: &MessageRef) -> Result<Option<Message>, BrokerError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.names().message(&message.from, &message.id));
        let fields: HashMap<String, String> = self.read(&command).await?;
        if fields.is_empty() { Ok(None) } else { read_message(&fields).map(Some) }
    }

    pub(super) async fn mark_read(
        &self,
        user: &str,
        cursor: &Cursor,
        replica: &str,
    ) -> Result<bool, BrokerError> {
        let mut call = self.appending(&MARK_READ, replica, FanOut::All);
        call.key(self.names().read_position(user));
        call.arg(user).arg(&cursor.epoch).arg(cursor.position.to_string());
        let (moved, faults): (u8, Vec<String>) = self.eval(&call).await?;
        report(&faults);
        Ok(moved == 1)
    }

    pub(super) async fn read_position(&self, user: &str) -> Result<Option<Cursor>, BrokerError> {
        let mut call = READ_POSITION.key(self.names().sequence());
        call.key(self.names().read_position(user)).arg(self.call_time());
        let cursor: String = self.eval_read(&call).await?;
        Ok(cursor.parse().ok())
    }
}

/// What a script could not do, and what nothing depends on.
fn report(faults: &[String]) {
    for fault in faults {
        tracing::warn!(%fault, "the ledger could not do all of it");
    }
}

/// From the fields that send.lua, claim.lua, advance.lua and written.lua write.
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
