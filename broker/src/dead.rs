//! What could not be delivered: three lists, each with the reason and the entry's own bytes, so that it can be looked at,
//! mended and put back.

use std::sync::LazyLock;

use redis::Script;

use crate::{Broker, BrokerError};

/// Which dead list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeadList {
    /// What producers pushed and no reader can read.
    #[default]
    Producers,
    /// What users sent.
    People,
    /// What the application did not take.
    Outbox,
}

impl DeadList {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Producers, Self::People, Self::Outbox];

    /// The word in options.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Producers => "producers",
            Self::People => "people",
            Self::Outbox => "outbox",
        }
    }

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
    /// Names it in its list; empty before it is in one.
    pub id: String,
    /// A word: see [`carillon_protocol::RefusalReason`].
    pub reason: String,
    /// A sentence.
    pub detail: String,
    /// The replica that took it.
    pub claimed_by: String,
    /// Its size, in bytes.
    pub size: usize,
    /// Its bytes, of which [`crate::limits::DEAD_RAW_MAX_BYTES`] are kept.
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

/// KEYS 1 the dead list  2 the list. ARGV 1 the id  2 the wake-up channel.
static PUT_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not entry then return 0 end
local field = {}
for i = 1, #entry[2], 2 do field[entry[2][i]] = entry[2][i + 1] end
if #field.raw ~= tonumber(field.size) then return { err = 'CUT only a part of the entry was kept' } end
redis.call('RPUSH', KEYS[2], field.raw)
redis.call('XDEL', KEYS[1], ARGV[1])
redis.pcall('PUBLISH', ARGV[2], 'new')
return 1",
    )
});

impl Broker {
    /// Writes an entry to a dead list that was claimed and that the strict reading refuses. `remembered` is what the
    /// claim kept of its sender and id, which are free again.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn bury(&self, dead: &Dead, remembered: &[u8]) -> Result<(), BrokerError> {
        let engine = &self.0;
        let names = engine.names();
        let mut call = BURY.key(names.sequence());
        call.key(names.ids("a")).key(names.ids("b"));
        call.arg(engine.call_time()).arg(names.prefix());
        call.arg(&dead.raw).arg(&dead.reason).arg(&dead.detail).arg(&dead.claimed_by).arg(remembered);
        engine.eval(&call).await
    }

    /// A dead list, oldest first.
    ///
    /// # Errors
    /// When Redis is away or refuses.
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
    /// When Redis is away or refuses, and for an entry of which only a part was kept.
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
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn drop_dead(&self, list: DeadList, id: &str) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("XDEL");
        command.arg(self.0.names().dead(list)).arg(id);
        self.0.run(&command).await
    }
}

fn from_fields(fields: &[Vec<u8>]) -> Dead {
    let field = |name: &str| {
        let pairs = fields.chunks_exact(2).find(|pair| pair[0] == name.as_bytes());
        pairs.map(|pair| pair[1].clone()).unwrap_or_default()
    };
    let text = |name: &str| String::from_utf8_lossy(&field(name)).into_owned();
    Dead {
        id: String::new(),
        reason: text("reason"),
        detail: text("detail"),
        claimed_by: text("claimed_by"),
        size: text("size").parse().unwrap_or_default(),
        raw: field("raw"),
    }
}
