//! Tokens that were called back before their time. They are kept, so that a replica that was cut off,
//! or starts later, knows them too; the published word is only to be quick.

use std::sync::LazyLock;

use redis::Script;

use crate::engine::Engine;
use crate::limits::{REVOCATION_SKEW_MAX_S, REVOCATIONS_KEEP_S, REVOCATIONS_MAX};
use crate::{Broker, BrokerError};

/// Which tokens and sessions are refused, though their own time is not over.
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
    /// One session.
    Session {
        /// Its id.
        session_id: String,
        /// The second, since 1970, in which it was called back.
        until_s: u64,
    },
    /// All sessions that a key has sealed.
    SessionKey {
        /// The name of the key.
        key_id: String,
        /// The second, since 1970, in which it was called back.
        until_s: u64,
    },
}

static REVOKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("revocations/revoke.lua")));

static REPLACE_KEY: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("revocations/replace_key.lua")));

/// Revocations in one command that brings them back.
const RESTORE_BATCH: usize = 1_000;

/// What is published on the control channel.
pub(crate) enum Control {
    /// Tokens were revoked.
    Revoked(Revocation),
    /// A replica brought back what Redis had lost.
    Restored,
}

impl Control {
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        match std::str::from_utf8(payload).ok()?.split_once(' ')? {
            (_, "restored") => Some(Self::Restored),
            (until_s, member) => Revocation::new(member, until_s.parse().ok()?).map(Self::Revoked),
        }
    }
}

impl Revocation {
    fn member(&self) -> String {
        match self {
            Self::User { user, .. } => format!("user:{user}"),
            Self::Token { token_id, .. } => format!("token:{token_id}"),
            Self::Session { session_id, .. } => format!("session:{session_id}"),
            Self::SessionKey { key_id, .. } => format!("session_key:{key_id}"),
        }
    }

    fn until_s(&self) -> u64 {
        match self {
            Self::User { until_s, .. }
            | Self::Token { until_s, .. }
            | Self::Session { until_s, .. }
            | Self::SessionKey { until_s, .. } => *until_s,
        }
    }

    fn new(member: &str, until_s: u64) -> Option<Self> {
        match member.split_once(':')? {
            ("user", user) => Some(Self::User { user: user.to_owned(), until_s }),
            ("token", token_id) => Some(Self::Token { token_id: token_id.to_owned(), until_s }),
            ("session", id) => Some(Self::Session { session_id: id.to_owned(), until_s }),
            ("session_key", id) => Some(Self::SessionKey { key_id: id.to_owned(), until_s }),
            _ => None,
        }
    }
}

impl Broker {
    /// Revokes tokens: stored, and sent to all replicas. It counts until now by Redis' clock too, as far as that is no more
    /// than [`REVOCATION_SKEW_MAX_S`] ahead.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] when [`REVOCATIONS_MAX`] are kept already. Again is harmless.
    pub async fn revoke(&self, revocation: &Revocation) -> Result<(), BrokerError> {
        self.revoke_for(revocation, REVOCATIONS_KEEP_S).await
    }

    /// The same, where tokens are good for longer than usual: revocations are dropped after `keep_s` seconds.
    ///
    /// # Errors
    /// As [`Broker::revoke`].
    pub async fn revoke_for(&self, revocation: &Revocation, keep_s: u64) -> Result<(), BrokerError> {
        let mut call = REVOKE.key(self.0.names().revocations());
        call.arg(revocation.member()).arg(revocation.until_s()).arg(keep_s);
        call.arg(REVOCATIONS_MAX).arg(self.0.names().control()).arg(REVOCATION_SKEW_MAX_S);
        match self.0.eval::<String>(&call).await?.as_str() {
            "done" => Ok(()),
            _ => Err(BrokerError::Refused(format!(
                "{REVOCATIONS_MAX} revocations are kept already, which is all there may be"
            ))),
        }
    }

    /// Brings back revocations that Redis has lost, and tells all replicas to read them. None moves to an earlier second.
    ///
    /// # Errors
    /// When Redis is away or refuses. Again is harmless.
    pub async fn restore_revocations(&self, revocations: &[Revocation]) -> Result<(), BrokerError> {
        let names = self.0.names();
        for batch in revocations.chunks(RESTORE_BATCH) {
            let mut add = redis::cmd("ZADD");
            add.arg(names.revocations()).arg("GT");
            for revocation in batch {
                add.arg(revocation.until_s()).arg(revocation.member());
            }
            self.0.run::<u64>(&add).await?;
        }
        let mut announce = redis::cmd("PUBLISH");
        announce.arg(names.control()).arg("0 restored");
        self.0.run::<u64>(&announce).await.map(|_| ())
    }

    /// All that are kept: those of the last [`REVOCATIONS_KEEP_S`] seconds, where nothing else was asked for.
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

    /// The key that replicas seal sessions with; `None` where there is none.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn kept_session_key(&self) -> Result<Option<[u8; 32]>, BrokerError> {
        self.0.kept_session_key().await
    }

    /// Puts `fresh` in the place of the key `old`, and returns the key that is there now: another one, where somebody was
    /// quicker.
    ///
    /// # Errors
    /// When Redis is away or refuses. Again is harmless.
    pub async fn replace_session_key(&self, old: [u8; 32], fresh: [u8; 32]) -> Result<[u8; 32], BrokerError> {
        let mut call = REPLACE_KEY.key(self.0.names().session_key());
        call.arg(&old[..]).arg(&fresh[..]);
        let kept: Vec<u8> = self.0.eval(&call).await?;
        let refused = || BrokerError::Refused("there is no key of sessions to replace".to_owned());
        kept.try_into().map_err(|_| refused())
    }
}

impl Engine {
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
        let _made: Option<String> = self.read(&set).await?;
        let kept = self.kept_session_key().await?;
        kept.ok_or_else(|| BrokerError::Refused(format!("{key} was removed as it was made")))
    }

    async fn kept_session_key(&self) -> Result<Option<[u8; 32]>, BrokerError> {
        let key = self.names().session_key();
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let kept: Option<Vec<u8>> = self.read(&get).await?;
        let is_ours = |kept: Vec<u8>| kept.try_into();
        kept.map(is_ours).transpose().map_err(|_| BrokerError::Refused(format!("{key} is no key of ours")))
    }
}
