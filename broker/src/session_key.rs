//! The key that all replicas seal sessions with.

use std::sync::LazyLock;

use redis::Script;

use crate::{Broker, BrokerError};

static REPLACE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("session_key/replace.lua")));

impl Broker {
    /// Returns the key that all replicas seal sessions with, and stores `fresh` as that key where none is stored yet.
    /// Redis keeps it beside history.
    pub async fn session_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], BrokerError> {
        let key = self.0.names().session_key();
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(&fresh[..]).arg("NX");
        let _made: Option<String> = self.0.read(&set).await?;
        let kept = self.kept_session_key().await?;
        kept.ok_or_else(|| BrokerError::Refused(format!("{key} was removed as it was made")))
    }

    /// Returns the key that replicas seal sessions with; `None` where none is stored.
    pub async fn kept_session_key(&self) -> Result<Option<[u8; 32]>, BrokerError> {
        let key = self.0.names().session_key();
        let mut get = redis::cmd("GET");
        get.arg(&key);
        let kept: Option<Vec<u8>> = self.0.read(&get).await?;
        let is_ours = |kept: Vec<u8>| kept.try_into();
        kept.map(is_ours)
            .transpose()
            .map_err(|_| BrokerError::Refused(format!("{key} does not hold a key of ours")))
    }

    /// Replaces the key `old` by `fresh`, and returns the key that is stored then: a third one, where another replica
    /// replaced `old` first. Repeating it is harmless.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] where no key is stored.
    pub async fn replace_session_key(&self, old: [u8; 32], fresh: [u8; 32]) -> Result<[u8; 32], BrokerError> {
        let mut call = REPLACE.key(self.0.names().session_key());
        call.arg(&old[..]).arg(&fresh[..]);
        let kept: Vec<u8> = self.0.eval(&call).await?;
        let refused = || BrokerError::Refused("there is no key of sessions to replace".to_owned());
        kept.try_into().map_err(|_| refused())
    }
}
