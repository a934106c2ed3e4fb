use std::collections::{BTreeMap, HashMap};

use carillon_protocol::limits::WAITING_MAX_ENTRIES;
use carillon_protocol::{Audience, Cursor, Status};
use redis::Script;

use super::{Accepted, Message, NewMessage, Writing, remembered};
use crate::engine::{Engine, appending_script};
use crate::limits::{WRITINGS_MAX, history_age_ms};
use crate::{BrokerError, FanOut};

/// The scripts of the ledger.
pub(crate) struct Scripts {
    accept: Script,
    advance: Script,
    mark_read: Script,
    written: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            accept: Script::new(include_str!("accept.lua")),
            advance: appending_script(&[include_str!("status.lua"), include_str!("advance.lua")]),
            mark_read: appending_script(&[include_str!("mark_read.lua")]),
            written: Script::new(include_str!("written.lua")),
        }
    }
}

impl Engine {
    pub(crate) async fn accept(&self, message: &NewMessage<'_>) -> Result<Accepted, BrokerError> {
        let keep_ms = history_age_ms(&Audience::User(String::new())).unwrap_or_default();
        let names = self.names();
        let mut call = self.ledger.accept.key(names.message(message.id));
        call.key(&names.list).key(names.ids("a")).key(names.ids("b"));
        call.arg(message.from).arg(message.to).arg(message.entry).arg(message.accepted_by);
        call.arg(keep_ms).arg(WAITING_MAX_ENTRIES).arg(&names.channel);
        call.arg(remembered(message.from, message.id));
        let (what, status): (String, String) = self.eval(&call).await?;
        match what.as_str() {
            "accepted" => Ok(Accepted::Stored),
            "repeated" => Ok(Accepted::Repeated(status.parse().map_err(BrokerError::Refused)?)),
            "conflict" => Ok(Accepted::Conflict),
            _ => Ok(Accepted::Full),
        }
    }

    pub(crate) async fn advance(
        &self,
        user: &str,
        ids: &[String],
        status: Status,
        replica: &str,
    ) -> Result<u64, BrokerError> {
        let mut call = self.appending(&self.ledger.advance, replica, FanOut::All);
        for id in ids {
            call.key(self.names().message(id));
        }
        call.arg(user).arg(status.as_str()).arg(ids);
        let (changed, faults): (u64, Vec<String>) = self.eval(&call).await?;
        report(&faults);
        Ok(changed)
    }

    pub(crate) async fn note_written(
        &self,
        id: &str,
        replica: &str,
        connection: &str,
    ) -> Result<(), BrokerError> {
        let mut call = self.ledger.written.key(self.names().message(id));
        call.arg(replica).arg(connection).arg(WRITINGS_MAX);
        self.eval::<u64>(&call).await.map(|_| ())
    }

    pub(crate) async fn message(&self, id: &str) -> Result<Option<Message>, BrokerError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.names().message(id));
        let fields: HashMap<String, String> = self.read(&command).await?;
        if fields.is_empty() { Ok(None) } else { read_message(&fields).map(Some) }
    }

    pub(crate) async fn mark_read(
        &self,
        user: &str,
        cursor: &Cursor,
        replica: &str,
    ) -> Result<bool, BrokerError> {
        let mut call = self.appending(&self.ledger.mark_read, replica, FanOut::All);
        call.key(self.names().read_position(user));
        call.arg(user).arg(&cursor.epoch).arg(cursor.position.to_string());
        let (moved, faults): (u8, Vec<String>) = self.eval(&call).await?;
        report(&faults);
        Ok(moved == 1)
    }

    pub(crate) async fn read_position(&self, user: &str) -> Result<Option<Cursor>, BrokerError> {
        let mut command = redis::cmd("GET");
        command.arg(self.names().read_position(user));
        let cursor: Option<String> = self.read(&command).await?;
        Ok(cursor.and_then(|cursor| cursor.parse().ok()))
    }
}

/// What a script could not do, and what nothing depends on.
fn report(faults: &[String]) {
    for fault in faults {
        tracing::warn!(%fault, "the ledger could not do all of it");
    }
}

/// From the fields that accept.lua, claim.lua, advance.lua and written.lua write.
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
    })
}
