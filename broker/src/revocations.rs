//! Tokens that were called back before their time. They are kept, so that a replica that was cut off,
//! or starts later, knows them too; the published word is only to be quick.

use std::collections::BTreeMap;

use redis::Script;

use crate::limits::{REVOCATION_AHEAD_MAX_S, REVOCATIONS_KEEP_S, REVOCATIONS_MAX};
use crate::memory::MemoryEngine;
use crate::redis_engine::RedisEngine;
use crate::{Broker, BrokerError, Engine, Event};

/// Which tokens are refused, though their own time is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// All tokens of a user that were issued until then.
    User {
        /// The user.
        user: String,
        /// The last second, since 1970, in which a token that is refused was issued.
        until_s: u64,
    },
    /// One token.
    Token {
        /// Its `jti`.
        token_id: String,
        /// The second, since 1970, in which it was called back.
        until_s: u64,
    },
}

/// KEYS 1 revocations. ARGV 1 what is revoked  2 until when, in seconds  3 seconds that it is kept
/// 4 how many are kept  5 the control channel  6 seconds that it may lie ahead. What is kept is measured by
/// Redis' clock, so that no revocation can push out another before its time; and it counts until now by that
/// clock at least, so that a replica whose clock is behind leaves out none of the tokens that it is for.
const REVOKE: &str = "
local now = tonumber(redis.call('TIME')[1])
if tonumber(ARGV[2]) > now + tonumber(ARGV[6]) then return 'ahead' end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[3]))
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[4]) then return 'full' end
local till = string.format('%.0f', math.max(tonumber(ARGV[2]), now))
redis.call('ZADD', KEYS[1], 'GT', till, ARGV[1])
redis.call('PUBLISH', ARGV[5], till .. ' ' .. ARGV[1])
return 'done'";

impl Revocation {
    fn member(&self) -> String {
        match self {
            Self::User { user, .. } => format!("user:{user}"),
            Self::Token { token_id, .. } => format!("token:{token_id}"),
        }
    }

    fn until_s(&self) -> u64 {
        match self {
            Self::User { until_s, .. } | Self::Token { until_s, .. } => *until_s,
        }
    }

    fn new(member: &str, until_s: u64) -> Option<Self> {
        match member.split_once(':')? {
            ("user", user) => Some(Self::User { user: user.to_owned(), until_s }),
            ("token", token_id) => Some(Self::Token { token_id: token_id.to_owned(), until_s }),
            _ => None,
        }
    }

    /// From a message on the control channel.
    pub(crate) fn heard(payload: &[u8]) -> Option<Self> {
        let (until_s, member) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
        Self::new(member, until_s.parse().ok()?)
    }
}

impl Broker {
    /// Calls tokens back: stored, and told to all replicas. It counts until now by Redis' clock at least.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] when [`REVOCATIONS_MAX`] are kept already, and for a revocation that lies more
    /// than [`REVOCATION_AHEAD_MAX_S`] ahead. Again is harmless.
    pub async fn revoke(&self, revocation: &Revocation) -> Result<(), BrokerError> {
        let answer = engine!(self, engine => engine.revoke(revocation))?;
        match answer.as_str() {
            "done" => Ok(()),
            "full" => Err(BrokerError::Refused(format!(
                "{REVOCATIONS_MAX} revocations are kept already, which is all there may be"
            ))),
            _ => Err(BrokerError::Refused(format!(
                "a revocation until second {}, more than {REVOCATION_AHEAD_MAX_S} s ahead",
                revocation.until_s()
            ))),
        }
    }

    /// All that are kept: those of the last [`REVOCATIONS_KEEP_S`] seconds.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, BrokerError> {
        engine!(self, engine => engine.revocations())
    }

    /// The key that all replicas seal sessions with: `fresh` where there is none yet. It is kept where
    /// their history is.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn session_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], BrokerError> {
        engine!(self, engine => engine.session_key(fresh))
    }
}

impl RedisEngine {
    async fn revoke(&self, revocation: &Revocation) -> Result<String, BrokerError> {
        let script = Script::new(REVOKE);
        let mut call = script.key(self.names().revocations());
        call.arg(revocation.member()).arg(revocation.until_s()).arg(REVOCATIONS_KEEP_S);
        call.arg(REVOCATIONS_MAX).arg(self.names().control()).arg(REVOCATION_AHEAD_MAX_S);
        let call = &call;
        self.link.run(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }

    async fn revocations(&self) -> Result<Vec<Revocation>, BrokerError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.names().revocations()).arg(0).arg(-1).arg("WITHSCORES");
        let all: Vec<(String, u64)> = self.ask(&command).await?;
        Ok(all.iter().filter_map(|(member, until_s)| Revocation::new(member, *until_s)).collect())
    }

    async fn session_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], BrokerError> {
        let key = self.names().session_key();
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(&fresh[..]).arg("NX");
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let _made: Option<String> = self.ask(&set).await?;
        let kept: Vec<u8> = self.ask(&get).await?;
        kept.try_into().map_err(|_| BrokerError::Refused(format!("{key} is no key of ours")))
    }
}

impl MemoryEngine {
    fn revoke(&self, revocation: &Revocation) -> Result<String, BrokerError> {
        let now_s = self.now_ms() / 1_000;
        let until_s = revocation.until_s().max(now_s);
        if until_s > now_s + REVOCATION_AHEAD_MAX_S {
            return Ok("ahead".to_owned());
        }
        let member = revocation.member();
        let told = Revocation::new(&member, until_s).map(Event::Revoked);
        let mut store = self.store()?;
        let kept: &mut BTreeMap<_, _> = &mut store.revocations;
        kept.retain(|_, at_s| *at_s > now_s.saturating_sub(REVOCATIONS_KEEP_S));
        if kept.len() >= REVOCATIONS_MAX && !kept.contains_key(&member) {
            return Ok("full".to_owned());
        }
        let known = kept.entry(member).or_default();
        *known = until_s.max(*known);
        told.iter().for_each(|told| self.tell_all(told));
        Ok("done".to_owned())
    }

    fn revocations(&self) -> Result<Vec<Revocation>, BrokerError> {
        let store = self.store()?;
        Ok(store
            .revocations
            .iter()
            .filter_map(|(member, until_s)| Revocation::new(member, *until_s))
            .collect())
    }

    fn session_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], BrokerError> {
        Ok(*self.store()?.session_key.get_or_insert(fresh))
    }
}
