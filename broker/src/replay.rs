//! What may happen only once, such as a signed request: the first to name a key is told so, for a while.

use std::time::Duration;

use crate::engine::Engine;
use crate::limits::{USED_KEY_MAX_BYTES, USED_KEY_MAX_KEEP};
use crate::{Broker, BrokerError};

impl Broker {
    /// Whether nobody has used this key before, on any replica, within the `keep` that its first use named. From
    /// now on it is used, until `keep` is over, which is at least a millisecond and at most [`USED_KEY_MAX_KEEP`].
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether the key is used now: asked again, it may be its own forerunner.
    /// [`BrokerError::Refused`] for a key of more than [`USED_KEY_MAX_BYTES`].
    pub async fn first_use(&self, key: &str, keep: Duration) -> Result<bool, BrokerError> {
        if key.len() > USED_KEY_MAX_BYTES {
            let detail = format!("a key of {} bytes, at most {USED_KEY_MAX_BYTES}", key.len());
            return Err(BrokerError::Refused(detail));
        }
        let keep = keep.clamp(Duration::from_millis(1), USED_KEY_MAX_KEEP);
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        self.0.first_use(key, keep_ms).await
    }
}

impl Engine {
    async fn first_use(&self, key: &str, keep_ms: u64) -> Result<bool, BrokerError> {
        let mut command = redis::cmd("SET");
        command.arg(self.names().used(key)).arg(1).arg("NX").arg("PX").arg(keep_ms);
        // Not tried again on a new connection: a first use whose answer was lost would find itself.
        let done: Option<String> = self.run(&command).await?;
        Ok(done.is_some())
    }
}
