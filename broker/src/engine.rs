//! How the broker speaks to Redis: one connection for commands, one for subscriptions, and the scripts.

mod connection;
mod link;
pub(crate) mod listen;
#[cfg(feature = "memory")]
pub(crate) mod memory;
mod subscriber;

use std::time::Duration;

use carillon_protocol::limits::{ENTRY_MAX_BYTES, NAME_MAX_BYTES};
use carillon_protocol::{Audience, Cursor, Position};
use redis::{Client, Cmd, FromRedisValue, Script, ScriptInvocation, TlsCertificates};

use crate::history::{History, Part, Reading, begin, merge};
use crate::ledger;
use crate::limits::{
    BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, DEAD_MAX_ENTRIES, DEAD_RAW_MAX_BYTES, HISTORY_MAX_ENTRIES,
    IDS_KEEP_MS, IDS_MAX, READ_MAX_BYTES, READ_MAX_ENTRIES, history_age_ms,
};
use crate::{Batch, BrokerError, Claimed, Dead, FanOut, Kind, Names, Refused, Stored};

use link::{Link, Place};

/// What speaks to Redis.
pub(crate) struct Engine {
    link: Link,
    names: Names,
    pub(crate) ledger: ledger::Scripts,
    claim: Script,
    read_script: Script,
}

impl Engine {
    pub(crate) fn new(url: &str, names: Names) -> Result<Self, BrokerError> {
        // redis-rs panics on rediss:// without a provider; a second install is refused, and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self::at(Place::Redis(Box::new(open(url)?)), names))
    }

    #[cfg(feature = "memory")]
    pub(crate) fn memory(server: memory::Server) -> Self {
        Self::at(Place::Memory(server), Names::default())
    }

    fn at(place: Place, names: Names) -> Self {
        Self {
            link: Link::new(place),
            names,
            ledger: ledger::Scripts::default(),
            claim: appending_script(&[include_str!("ledger/status.lua"), include_str!("claim.lua")]),
            read_script: Script::new(&[include_str!("sequence.lua"), include_str!("read.lua")].concat()),
        }
    }

    fn place(&self) -> &Place {
        self.link.place()
    }

    /// Waits before the next try to reach the server. The one in this process tells when it is back.
    async fn pause(&self, pause: Duration) {
        match self.place() {
            Place::Redis(_) => tokio::time::sleep(pause).await,
            #[cfg(feature = "memory")]
            Place::Memory(server) => server.reachable().await,
        }
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// LPUSH and PUBLISH in one round trip. They are two commands and no pipeline, in which redis-rs hides the code of an
    /// error: a full Redis must be told apart from one that refuses.
    pub(crate) async fn push(&self, entries: &[Vec<u8>]) -> Result<u64, BrokerError> {
        let (mut push, mut wake) = (redis::cmd("LPUSH"), redis::cmd("PUBLISH"));
        push.arg(&self.names.list).arg(entries);
        wake.arg(&self.names.channel).arg("new");
        let (waiting, woken) = tokio::join!(self.run::<u64>(&push), self.run::<u64>(&wake));
        if let (Ok(_), Err(error)) = (&waiting, woken) {
            // Replicas look at the list by themselves too.
            tracing::debug!(%error, "a wake-up was not published");
        }
        waiting
    }

    pub(crate) async fn waiting(&self) -> Result<u64, BrokerError> {
        let mut command = redis::cmd("LLEN");
        command.arg(&self.names.list);
        self.read(&command).await
    }

    pub(crate) async fn claim(&self, replica: &str, fan_out: FanOut) -> Result<Batch, BrokerError> {
        let mut call = self.appending(&self.claim, replica, fan_out);
        call.key(&self.names.list).key(self.names.ids("a")).key(self.names.ids("b")).key(self.names.dead());
        call.arg(BATCH_MAX_ENTRIES).arg(BATCH_MAX_BYTES).arg(ENTRY_MAX_BYTES);
        call.arg(IDS_KEEP_MS).arg(IDS_MAX / 2);
        call.arg(DEAD_MAX_ENTRIES).arg(DEAD_RAW_MAX_BYTES).arg(NAME_MAX_BYTES);
        type Answer = (String, u64, u64, Vec<String>, Vec<Vec<u8>>, Vec<String>);
        let (epoch, waiting, repeated, refused, claimed, faults): Answer = self.eval(&call).await?;
        let refused = refused
            .chunks_exact(2)
            .map(|pair| Refused { reason: pair[0].clone(), detail: pair[1].clone() })
            .collect();
        let claimed = claimed.chunks_exact(4).map(claimed_entry).collect::<Result<_, _>>()?;
        Ok(Batch { epoch, waiting, repeated, refused, claimed, faults })
    }

    /// A call of a script that begins with append.lua, with the key and the arguments that it takes.
    pub(crate) fn appending<'a>(
        &self,
        script: &'a Script,
        appender: &str,
        fan_out: FanOut,
    ) -> ScriptInvocation<'a> {
        let everyone_age = history_age_ms(&Audience::Everyone).unwrap_or_default();
        let user_age = history_age_ms(&Audience::User(String::new())).unwrap_or_default();
        let mut call = script.key(self.names.sequence());
        call.arg(fresh_epoch()).arg(self.names.prefix()).arg(appender).arg(fan_out.as_str());
        call.arg(HISTORY_MAX_ENTRIES).arg(everyone_age).arg(user_age);
        call
    }

    pub(crate) async fn bury(&self, dead: &Dead) -> Result<(), BrokerError> {
        let raw = &dead.raw[..dead.raw.len().min(DEAD_RAW_MAX_BYTES)];
        let mut command = redis::cmd("XADD");
        command.arg(self.names.dead()).arg("MAXLEN").arg(DEAD_MAX_ENTRIES).arg("*");
        command
            .arg("reason")
            .arg(&dead.reason)
            .arg("detail")
            .arg(&dead.detail)
            .arg("size")
            .arg(dead.raw.len());
        command.arg("claimed_by").arg(&dead.claimed_by).arg("raw").arg(raw);
        self.run(&command).await
    }

    pub(crate) async fn dead(&self) -> Result<Vec<Dead>, BrokerError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(self.names.dead()).arg("-").arg("+");
        type Row = (String, Vec<Vec<u8>>);
        let rows: Vec<Row> = self.read(&command).await?;
        rows.iter().map(|(_, fields)| dead_entry(fields)).collect()
    }

    pub(crate) async fn tail(&self) -> Result<Cursor, BrokerError> {
        let reading = self.reading(&[], Position::ZERO, 1).await?;
        Ok(Cursor { epoch: reading.epoch, position: reading.last })
    }

    pub(crate) async fn history(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
    ) -> Result<History, BrokerError> {
        let limit = limit.clamp(1, READ_MAX_ENTRIES);
        let mut reading = self.reading(audiences, since.position, limit).await?;
        let from = begin(since, &reading.epoch, reading.first);
        if from != since.position {
            reading = self.reading(audiences, from, limit).await?;
        }
        Ok(merge(since, from, reading))
    }

    async fn reading(
        &self,
        audiences: &[Audience],
        after: Position,
        limit: usize,
    ) -> Result<Reading, BrokerError> {
        let mut call = self.read_script.key(self.names.sequence());
        for audience in audiences {
            call.key(self.names.history(audience));
        }
        call.arg(fresh_epoch()).arg(after.to_string()).arg(limit).arg(READ_MAX_BYTES);
        type Answer = (String, String, String, u64, String, Vec<(String, String, Vec<Vec<u8>>)>);
        let (epoch, first, last, now_ms, reached, parts): Answer = self.eval_read(&call).await?;
        let parts = audiences
            .iter()
            .zip(parts)
            .map(|(audience, (prev, tail, entries))| {
                let entries = entries.chunks_exact(5).map(history_entry).collect::<Result<_, _>>()?;
                let (prev, tail) = (known(&prev)?, known(&tail)?);
                Ok(Part { audience: audience.clone(), entries, prev, tail })
            })
            .collect::<Result<_, BrokerError>>()?;
        let (first, last) = (position(first.as_bytes())?, position(last.as_bytes())?);
        Ok(Reading { epoch, first, last, now_ms, reached: known(&reached)?, parts })
    }

    /// Runs one command. It is not tried again: only the caller knows whether it is idempotent.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        self.link.run(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// Runs a command that changes nothing, once more on a new connection when the one at hand had died.
    pub(crate) async fn read<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        self.link.ask(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// [`Engine::run`] for a script.
    pub(crate) async fn eval<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        self.link.run(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }

    /// [`Engine::read`] for a script.
    pub(crate) async fn eval_read<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        self.link.ask(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }

    /// A Redis that may evict keys would lose entries without a word; this says so in the log.
    pub(crate) async fn check_policy(&self) -> Result<Option<String>, BrokerError> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("maxmemory-policy");
        let answer: Vec<String> = self.read(&command).await?;
        Ok(answer.into_iter().nth(1))
    }
}

/// A script that appends to history.
pub(crate) fn appending_script(parts: &[&str]) -> Script {
    let prelude = [include_str!("sequence.lua"), include_str!("timestamp.lua"), include_str!("append.lua")];
    Script::new(&[&prelude, parts].concat().concat())
}

/// A client for a URL. Beside what redis-rs reads in it, `ca` names a file with the certificates of those
/// who may have signed the server's, in place of the public ones.
fn open(url: &str) -> Result<Client, BrokerError> {
    let parsed = redis::parse_redis_url(url);
    let mut options = parsed.iter().flat_map(|url| url.query_pairs());
    let client = match options.find(|(name, _)| name == "ca") {
        None => Client::open(url),
        Some((_, path)) => {
            let root_cert = std::fs::read(&*path)
                .map_err(|error| BrokerError::Url(format!("the certificates of ca={path}: {error}")))?;
            Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
        }
    };
    client.map_err(|error| BrokerError::Url(error.to_string()))
}

/// A name for an epoch that might begin now: 64 random bits.
fn fresh_epoch() -> String {
    format!("{:016x}", fastrand::u64(..))
}

fn position(bytes: &[u8]) -> Result<Position, BrokerError> {
    let text = String::from_utf8_lossy(bytes);
    text.parse().map_err(|_| {
        BrokerError::Refused(format!("'{text}' is no position; is something else writing to our keys?"))
    })
}

/// A position, or an empty text where there is none.
fn known(text: &str) -> Result<Option<Position>, BrokerError> {
    if text.is_empty() { Ok(None) } else { position(text.as_bytes()).map(Some) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// From `position, prev, audience, raw` of claim.lua.
fn claimed_entry(fields: &[Vec<u8>]) -> Result<Claimed, BrokerError> {
    // A name that is no UTF-8 passes the script. The strict reading refuses the entry; until then it must
    // not take the rest of its batch with it.
    let audience = text(&fields[2]).parse().unwrap_or_default();
    let (position, prev) = (position(&fields[0])?, position(&fields[1])?);
    let stored = Stored { position, prev, kind: Kind::Notification, raw: fields[3].clone() };
    Ok(Claimed { audience, stored })
}

/// From `position, claimed_by, kind, prev, entry` of read.lua.
fn history_entry(fields: &[Vec<u8>]) -> Result<(String, Stored), BrokerError> {
    let (position, prev) = (position(&fields[0])?, position(&fields[3])?);
    let stored = Stored { position, prev, kind: Kind::parse(&text(&fields[2])), raw: fields[4].clone() };
    Ok((text(&fields[1]), stored))
}

/// From the fields of the dead list, in the order in which they are written.
fn dead_entry(fields: &[Vec<u8>]) -> Result<Dead, BrokerError> {
    let [_, reason, _, detail, _, _, _, claimed_by, _, raw] = fields else {
        return Err(BrokerError::Refused("the dead list holds something that we did not write".to_owned()));
    };
    Ok(Dead { reason: text(reason), detail: text(detail), claimed_by: text(claimed_by), raw: raw.clone() })
}
