//! What the scripts of the ledger do, inside one process.

use std::collections::{BTreeMap, HashMap};

use carillon_protocol::limits::WAITING_MAX_ENTRIES;
use carillon_protocol::{Audience, Cursor, Status, format_timestamp};

use super::{Accepted, Message, NewMessage, Writing};
use crate::limits::{WRITINGS_MAX, history_age_ms};
use crate::memory::{MemoryEngine, Step, Store};
use crate::route::{Sent, remembered};
use crate::{BrokerError, FanOut, Kind};

/// The ledger of the in-memory store.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    messages: HashMap<String, Message>,
    read: HashMap<String, Cursor>,
}

impl MemoryEngine {
    pub(crate) fn accept(&self, message: &NewMessage<'_>) -> Result<Accepted, BrokerError> {
        let now_ms = self.now_ms();
        let mut store = self.store()?;
        store.ledger.forget(now_ms);
        if let Some(known) = store.ledger.messages.get(message.id) {
            let is_same = known.from == message.from && known.to == message.to;
            return Ok(if is_same { Accepted::Repeated(known.status) } else { Accepted::Conflict });
        }
        let remembered = remembered(message.from, message.id);
        if store.ids.iter().any(|ids| ids.contains(&remembered)) {
            return Ok(Accepted::Conflict);
        }
        if store.list.len() as u64 >= WAITING_MAX_ENTRIES {
            return Ok(Accepted::Full);
        }
        let kept = Message {
            from: message.from.to_owned(),
            to: message.to.to_owned(),
            status: Status::None,
            at_ms: BTreeMap::from([(Status::None, now_ms)]),
            accepted_by: message.accepted_by.to_owned(),
            claimed_by: None,
            routed: None,
            written: 0,
            writings: Vec::new(),
            acknowledged_by: None,
        };
        store.ledger.messages.insert(message.id.to_owned(), kept);
        drop(store);
        self.push(&[message.entry.to_vec()])?;
        Ok(Accepted::Stored)
    }

    pub(crate) fn advance(
        &self,
        user: &str,
        ids: &[String],
        status: Status,
        replica: &str,
    ) -> Result<u64, BrokerError> {
        let mut step = self.step(replica, FanOut::All);
        let mut store = self.store()?;
        let mut changed = 0;
        for id in ids {
            let Some(message) = store.ledger.messages.get_mut(id).filter(|message| message.to == user) else {
                continue;
            };
            if message.status >= status {
                continue;
            }
            message.acknowledged_by.get_or_insert_with(|| replica.to_owned());
            store.raise(&mut step, id, status);
            changed += 1;
        }
        self.publish(&store, step.fanouts);
        Ok(changed)
    }

    pub(crate) fn note_written(&self, id: &str, replica: &str, connection: &str) -> Result<(), BrokerError> {
        let at_ms = self.now_ms();
        if let Some(message) = self.store()?.ledger.messages.get_mut(id) {
            message.written += 1;
            if message.writings.len() < WRITINGS_MAX {
                let (replica, connection) = (replica.to_owned(), connection.to_owned());
                message.writings.push(Writing { at_ms, replica, connection });
            }
        }
        Ok(())
    }

    pub(crate) fn message(&self, id: &str) -> Result<Option<Message>, BrokerError> {
        let now_ms = self.now_ms();
        let mut store = self.store()?;
        store.ledger.forget(now_ms);
        Ok(store.ledger.messages.get(id).cloned())
    }

    pub(crate) fn mark_read(&self, user: &str, cursor: &Cursor, replica: &str) -> Result<bool, BrokerError> {
        let mut step = self.step(replica, FanOut::All);
        let mut store = self.store()?;
        let to = Cursor { epoch: cursor.epoch.clone(), position: cursor.position.min(store.last) };
        let is_further = store
            .ledger
            .read
            .get(user)
            .is_none_or(|known| known.epoch != to.epoch || known.position < to.position);
        if to.epoch != store.epoch || !is_further {
            return Ok(false);
        }
        let fields = serde_json::json!({ "read": to.to_string() }).to_string();
        store.ledger.read.insert(user.to_owned(), to);
        store.append(&mut step, Kind::Read, &Audience::User(user.to_owned()), fields.into_bytes());
        self.publish(&store, step.fanouts);
        Ok(true)
    }

    pub(crate) fn read_position(&self, user: &str) -> Result<Option<Cursor>, BrokerError> {
        Ok(self.store()?.ledger.read.get(user).cloned())
    }
}

impl Store {
    /// What claim.lua notes of a message that is on its way.
    pub(crate) fn send(&mut self, step: &mut Step<'_>, sent: &Sent) {
        let is_it = |message: &&mut Message| message.from == sent.from && message.to == sent.to;
        let Some(message) = self.ledger.messages.get_mut(&sent.id).filter(is_it) else { return };
        message.claimed_by = Some(step.appender.to_owned());
        if message.status < Status::Sent {
            self.raise(step, &sent.id, Status::Sent);
        }
    }

    /// And how many heard of it, once that is known.
    pub(crate) fn routed(&mut self, sent: &Sent, listeners: u64) {
        let message = self.ledger.messages.get_mut(&sent.id);
        if let Some(message) = message.filter(|message| message.claimed_by.is_some()) {
            message.routed = Some(listeners);
        }
    }

    fn raise(&mut self, step: &mut Step<'_>, id: &str, status: Status) {
        let Some(message) = self.ledger.messages.get_mut(id) else { return };
        message.status = status;
        message.at_ms.insert(status, step.now_ms);
        if status == Status::Read {
            // Whoever reads has it: there is no time at which it was read and not delivered.
            message.at_ms.entry(Status::Delivered).or_insert(step.now_ms);
        }
        let sender = Audience::User(message.from.clone());
        let at = format_timestamp(step.now_ms);
        let fields = serde_json::json!({ "id": id, "status": status, "at": at }).to_string();
        self.append(step, Kind::Status, &sender, fields.into_bytes());
    }
}

impl Ledger {
    /// Drops what is as old as the history of its receiver.
    fn forget(&mut self, now_ms: u64) {
        let keep_ms = history_age_ms(&Audience::User(String::new())).unwrap_or_default();
        let is_kept = |message: &Message| {
            message.at_ms.get(&Status::None).is_none_or(|accepted| accepted + keep_ms > now_ms)
        };
        if self.messages.values().any(|message| !is_kept(message)) {
            self.messages.retain(|_, message| is_kept(message));
        }
    }
}
