//! Tokens and sessions that were revoked before they expire. Redis keeps them, so that a replica that was offline, or starts
//! later, learns of them too; the message that is published only makes it quick.

use std::sync::LazyLock;

use redis::Script;

use crate::limits::{REVOCATION_SKEW_MAX_S, REVOCATIONS_KEEP_S, REVOCATIONS_MAX};
use crate::{Broker, BrokerError};

/// Revocations in one command that restores them.
const RESTORE_BATCH: usize = 1_000;

/// Tokens or sessions that are refused although they have not expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// All tokens of a user that were issued until a second.
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
        /// The second, since 1970, in which it was revoked.
        until_s: u64,
    },
    /// One session.
    Session {
        /// Its id.
        session_id: String,
        /// The second, since 1970, in which it was revoked.
        until_s: u64,
    },
    /// All sessions that were sealed with a key.
    SessionKey {
        /// The name of the key.
        key_id: String,
        /// The second, since 1970, in which it was revoked.
        until_s: u64,
    },
}

impl Revocation {
    /// Its member of the sorted set.
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

    /// The revocation of a member of the sorted set; `None` for a kind of a later version.
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

static REVOKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("revocations/revoke.lua")));

impl Broker {
    /// Stores a revocation and publishes it to all replicas. It applies until now by Redis' clock too, as far as that is at
    /// most [`REVOCATION_SKEW_MAX_S`] ahead. Repeating it is harmless.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] when [`REVOCATIONS_MAX`] are kept already.
    pub async fn revoke(&self, revocation: &Revocation) -> Result<(), BrokerError> {
        self.revoke_for(revocation, REVOCATIONS_KEEP_S).await
    }

    /// [`Broker::revoke`] for tokens that are valid for longer than usual: revocations are dropped after `keep_s` seconds.
    ///
    /// # Errors
    /// As for [`Broker::revoke`].
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

    /// Restores revocations that Redis has lost, and tells all replicas to read them. No revocation moves to an earlier
    /// second. Repeating it is harmless.
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

    /// Returns all revocations that are kept: those of the last [`REVOCATIONS_KEEP_S`] seconds, or of the longest `keep_s`
    /// that was asked for.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, BrokerError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.0.names().revocations()).arg(0).arg(-1).arg("WITHSCORES");
        let all: Vec<(String, u64)> = self.0.read(&command).await?;
        Ok(all.iter().filter_map(|(member, until_s)| Revocation::new(member, *until_s)).collect())
    }
}

/// A message on the control channel.
pub(crate) enum Control {
    /// Tokens were revoked.
    Revoked(Revocation),
    /// A replica restored revocations that Redis had lost.
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
