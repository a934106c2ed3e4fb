use carillon_protocol::limits::{ENTRY_MAX_BYTES, NAME_MAX_BYTES};
use carillon_protocol::{Audience, Cursor, Position};
use redis::{Client, Script, TlsCertificates};

use crate::history::{History, Part, Reading, begin, merge};
use crate::limits::{
    BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, DEAD_MAX_ENTRIES, DEAD_RAW_MAX_BYTES, HISTORY_MAX_ENTRIES,
    IDS_KEEP_MS, IDS_MAX, READ_MAX_BYTES, READ_MAX_ENTRIES, history_age_ms,
};
use crate::link::Link;
use crate::{Batch, BrokerError, Claimed, Dead, FanOut, Names, Refused, Stored};

/// The engine over a Redis server.
pub(crate) struct RedisEngine {
    link: Link,
    names: Names,
    claim: Script,
    read: Script,
}

impl RedisEngine {
    pub(crate) fn new(url: &str, names: Names) -> Result<Self, BrokerError> {
        // redis-rs panics on rediss:// without a provider; a second install is refused, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = open(url)?;
        let script = |body| Script::new(&format!("{}{body}", include_str!("sequence.lua")));
        Ok(Self {
            link: Link::new(client),
            names,
            claim: script(include_str!("claim.lua")),
            read: script(include_str!("read.lua")),
        })
    }

    pub(crate) fn client(&self) -> &Client {
        self.link.client()
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// LPUSH and PUBLISH in one round trip.
    pub(crate) async fn push(&self, entries: &[Vec<u8>]) -> Result<u64, BrokerError> {
        let mut pipe = redis::pipe();
        pipe.lpush(&self.names.list, entries).publish(&self.names.channel, "new").ignore();
        let pipe = &pipe;
        let (waiting,): (u64,) =
            self.link.run(|mut connection| async move { pipe.query_async(&mut connection).await }).await?;
        Ok(waiting)
    }

    pub(crate) async fn waiting(&self) -> Result<u64, BrokerError> {
        let mut command = redis::cmd("LLEN");
        command.arg(&self.names.list);
        self.ask(&command).await
    }

    pub(crate) async fn claim(&self, replica: &str, fan_out: FanOut) -> Result<Batch, BrokerError> {
        let everyone_age = history_age_ms(&Audience::Everyone).unwrap_or_default();
        let user_age = history_age_ms(&Audience::User(String::new())).unwrap_or_default();
        let mut call = self.claim.key(self.names.sequence());
        call.key(&self.names.list).key(self.names.ids("a")).key(self.names.ids("b")).key(self.names.dead());
        call.arg(fresh_epoch()).arg(self.names.prefix()).arg(replica).arg(fan_out.as_str());
        call.arg(BATCH_MAX_ENTRIES)
            .arg(BATCH_MAX_BYTES)
            .arg(ENTRY_MAX_BYTES)
            .arg(IDS_KEEP_MS)
            .arg(IDS_MAX / 2);
        call.arg(HISTORY_MAX_ENTRIES)
            .arg(everyone_age)
            .arg(user_age)
            .arg(DEAD_MAX_ENTRIES)
            .arg(DEAD_RAW_MAX_BYTES);
        call.arg(NAME_MAX_BYTES);
        let call = &call;
        type Answer = (String, u64, u64, Vec<String>, Vec<Vec<u8>>);
        let (epoch, waiting, repeated, refused, claimed): Answer =
            self.link.run(|mut connection| async move { call.invoke_async(&mut connection).await }).await?;
        let refused = refused
            .chunks_exact(2)
            .map(|pair| Refused { reason: pair[0].clone(), detail: pair[1].clone() })
            .collect();
        let claimed = claimed.chunks_exact(4).map(claimed_entry).collect::<Result<_, _>>()?;
        Ok(Batch { epoch, waiting, repeated, refused, claimed })
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
        let command = &command;
        self.link.run(|mut connection| async move { command.exec_async(&mut connection).await }).await
    }

    pub(crate) async fn dead(&self) -> Result<Vec<Dead>, BrokerError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(self.names.dead()).arg("-").arg("+");
        type Row = (String, Vec<Vec<u8>>);
        let rows: Vec<Row> = self.ask(&command).await?;
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
        let limit = limit.min(READ_MAX_ENTRIES);
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
        let mut call = self.read.key(self.names.sequence());
        for audience in audiences {
            call.key(self.names.history(audience));
        }
        call.arg(fresh_epoch())
            .arg(after.to_string())
            .arg(limit)
            .arg(READ_MAX_BYTES / audiences.len().max(1));
        let call = &call;
        type Answer = (String, String, String, u64, Vec<(u8, String, Vec<Vec<u8>>)>);
        let (epoch, first, last, now_ms, parts): Answer =
            self.link.ask(|mut connection| async move { call.invoke_async(&mut connection).await }).await?;
        let parts = audiences
            .iter()
            .zip(parts)
            .map(|(audience, (full, tail, entries))| {
                let entries = entries.chunks_exact(4).map(history_entry).collect::<Result<_, _>>()?;
                let tail = if tail.is_empty() { None } else { Some(position(tail.as_bytes())?) };
                Ok(Part { audience: audience.clone(), entries, full: full == 1, tail })
            })
            .collect::<Result<_, BrokerError>>()?;
        Ok(Reading {
            epoch,
            first: position(first.as_bytes())?,
            last: position(last.as_bytes())?,
            now_ms,
            parts,
        })
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, BrokerError> {
        self.link.ask(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// A Redis that may evict keys would lose entries without a word; this says so in the log.
    pub(crate) async fn check_policy(&self) -> Result<Option<String>, BrokerError> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("maxmemory-policy");
        let answer: Vec<String> = self.ask(&command).await?;
        Ok(answer.into_iter().nth(1))
    }
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// From `position, prev, audience, raw` of claim.lua.
fn claimed_entry(fields: &[Vec<u8>]) -> Result<Claimed, BrokerError> {
    // A name that is no UTF-8 passes the script. The strict reading refuses the entry; until then it must
    // not take the rest of its batch with it.
    let audience = text(&fields[2]).parse().unwrap_or_default();
    let stored =
        Stored { position: position(&fields[0])?, prev: position(&fields[1])?, raw: fields[3].clone() };
    Ok(Claimed { audience, stored })
}

/// From `position, claimed_by, prev, entry` of read.lua.
fn history_entry(fields: &[Vec<u8>]) -> Result<(String, Stored), BrokerError> {
    let stored =
        Stored { position: position(&fields[0])?, prev: position(&fields[2])?, raw: fields[3].clone() };
    Ok((text(&fields[1]), stored))
}

/// From the fields of the dead list, in the order in which they are written.
fn dead_entry(fields: &[Vec<u8>]) -> Result<Dead, BrokerError> {
    let [_, reason, _, detail, _, _, _, claimed_by, _, raw] = fields else {
        return Err(BrokerError::Refused("the dead list holds something that we did not write".to_owned()));
    };
    Ok(Dead { reason: text(reason), detail: text(detail), claimed_by: text(claimed_by), raw: raw.clone() })
}
