//! The dead lists: three lists of entries that could not be delivered, each with the reason and the entry's own bytes, so
//! that an operator can read it, correct it and put it back.

use std::sync::LazyLock;

use redis::Script;
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::engine::text;
use crate::{Broker, BrokerError};

/// Names a dead list, and is written as in the options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum DeadList {
    /// Entries that producers pushed and that are not valid.
    #[default]
    Producers,
    /// Messages that users sent.
    People,
    /// Messages that the application did not accept.
    Outbox,
}

impl DeadList {
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Producers => "dead",
            Self::People => "dead:people",
            Self::Outbox => "dead:outbox",
        }
    }
}

/// An entry of a dead list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dead {
    /// Names the entry in its list; empty before it is in one.
    pub id: String,
    /// A word: see [`carillon_protocol::RefusalReason`].
    pub reason: String,
    /// A sentence.
    pub detail: String,
    /// The replica that took the entry.
    pub claimed_by: String,
    /// The entry's size, in bytes.
    pub size: usize,
    /// The entry's bytes, of which [`crate::limits::DEAD_RAW_MAX_BYTES`] are kept.
    pub raw: Vec<u8>,
}

static BURY: LazyLock<Script> = LazyLock::new(|| {
    let parts = [
        include_str!("engine/sequence.lua"),
        include_str!("history/keep.lua"),
        "local prefix = ARGV[2]\n",
        include_str!("dead/dead.lua"),
        include_str!("dead/bury.lua"),
    ];
    Script::new(&parts.concat())
});

static PUT_BACK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("dead/put_back.lua")));

impl Broker {
    /// Writes a claimed entry to a dead list, since the strict reading refuses it. `remembered` is
    /// [`Claimed::remembered`](crate::Claimed::remembered) of the entry: its sender may use the id again.
    pub async fn bury(&self, dead: &Dead, remembered: &[u8]) -> Result<(), BrokerError> {
        let names = self.0.names();
        let mut call = BURY.key(names.sequence());
        call.key(names.ids("a")).key(names.ids("b"));
        call.arg(self.0.call_time()).arg(names.prefix());
        call.arg(&dead.raw).arg(&dead.reason).arg(&dead.detail).arg(&dead.claimed_by).arg(remembered);
        self.0.eval(&call).await
    }

    /// Returns the entries of a dead list, oldest first.
    pub async fn dead(&self, list: DeadList) -> Result<Vec<Dead>, BrokerError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(self.0.names().dead(list)).arg("-").arg("+");
        type Row = (String, Vec<Vec<u8>>);
        let rows: Vec<Row> = self.0.read(&command).await?;
        Ok(rows.into_iter().map(|(id, fields)| Dead { id, ..from_fields(&fields) }).collect())
    }

    /// Puts an entry of the producers' or people's dead list back, to be claimed next. Returns whether it was there.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] for the application's list, and for an entry of which only a part was kept.
    pub async fn put_back(&self, list: DeadList, id: &str) -> Result<bool, BrokerError> {
        if list == DeadList::Outbox {
            let detail = "a message to the application is sent by its session or user; it cannot be put back";
            return Err(BrokerError::Refused(detail.to_owned()));
        }
        let names = self.0.names();
        let mut call = PUT_BACK.key(names.dead(list));
        call.key(names.list()).arg(id).arg(names.channel());
        self.0.eval(&call).await
    }

    /// Removes an entry from a dead list. Returns whether it was there.
    pub async fn drop_dead(&self, list: DeadList, id: &str) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("XDEL");
        command.arg(self.0.names().dead(list)).arg(id);
        self.0.run(&command).await
    }
}

/// Reads the fields that dead.lua writes.
fn from_fields(fields: &[Vec<u8>]) -> Dead {
    let field = |name: &str| {
        let pair = fields.chunks_exact(2).find(|pair| pair[0] == name.as_bytes());
        pair.map(|pair| pair[1].clone()).unwrap_or_default()
    };
    Dead {
        id: String::new(),
        reason: text(&field("reason")),
        detail: text(&field("detail")),
        claimed_by: text(&field("claimed_by")),
        size: text(&field("size")).parse().unwrap_or_default(),
        raw: field("raw"),
    }
}
