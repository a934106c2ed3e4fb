//! Keys that may be used once, such as that of a signed request: only the first use of a key succeeds, on all replicas
//! together.

use std::time::Duration;

use crate::engine::milliseconds;
use crate::limits::{USED_KEY_MAX_BYTES, USED_KEY_MAX_KEEP};
use crate::{Broker, BrokerError};

impl Broker {
    /// Marks a key as used for `keep`, which is at least a millisecond and at most [`USED_KEY_MAX_KEEP`]. Returns whether
    /// this is its first use: false while an earlier use, on any replica, is kept. After [`BrokerError::Away`] the key may
    /// be used, so that a repeated call may return false for its own first use.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] for a key of more than [`USED_KEY_MAX_BYTES`].
    pub async fn first_use(&self, key: &str, keep: Duration) -> Result<bool, BrokerError> {
        if key.len() > USED_KEY_MAX_BYTES {
            let detail = format!("a key of {} bytes, at most {USED_KEY_MAX_BYTES}", key.len());
            return Err(BrokerError::Refused(detail));
        }
        let keep = keep.clamp(Duration::from_millis(1), USED_KEY_MAX_KEEP);
        let mut command = redis::cmd("SET");
        command.arg(self.0.names().used(key)).arg(1).arg("NX").arg("PX").arg(milliseconds(keep));
        // `run` and not `read`, which repeats a command on a new connection: a first use whose answer was lost would find
        // itself.
        let done: Option<String> = self.0.run(&command).await?;
        Ok(done.is_some())
    }
}
