//! Tokens that were called back before their time. They are kept, so that a replica that was cut off,
//! or starts later, knows them too; the published word is only to be quick.

use redis::Script;

use crate::engine::Engine;
use crate::limits::{REVOCATION_AHEAD_MAX_S, REVOCATIONS_KEEP_S, REVOCATIONS_MAX};
use crate::{Broker, BrokerError};

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
        let answer = self.0.revoke(revocation).await?;
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
        self.0.revocations().await
    }

    /// The key that all replicas seal sessions with: `fresh` where there is none yet. It is kept where
    /// their history is.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn session_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], BrokerError> {
        self.0.session_key(fresh).await
    }
}

impl Engine {
    async fn revoke(&self, revocation: &Revocation) -> Result<String, BrokerError> {
        let script = Script::new(REVOKE);
        let mut call = script.key(self.names().revocations());
        call.arg(revocation.member()).arg(revocation.until_s()).arg(REVOCATIONS_KEEP_S);
        call.arg(REVOCATIONS_MAX).arg(self.names().control()).arg(REVOCATION_AHEAD_MAX_S);
        self.eval(&call).await
    }

    async fn revocations(&self) -> Result<Vec<Revocation>, BrokerError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.names().revocations()).arg(0).arg(-1).arg("WITHSCORES");
        let all: Vec<(String, u64)> = self.read(&command).await?;
        Ok(all.iter().filter_map(|(member, until_s)| Revocation::new(member, *until_s)).collect())
    }

    async fn session_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], BrokerError> {
        let key = self.names().session_key();
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(&fresh[..]).arg("NX");
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let _made: Option<String> = self.read(&set).await?;
        let kept: Vec<u8> = self.read(&get).await?;
        kept.try_into().map_err(|_| BrokerError::Refused(format!("{key} is no key of ours")))
    }
}
