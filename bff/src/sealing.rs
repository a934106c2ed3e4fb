//! The key that seals sessions: made once for all replicas, and kept where their history is.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use carillon_broker::{Broker, BrokerError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::reader::no_random;
use crate::reply::Refusal;
use crate::seal::{KEY_BYTES, Sealer};

/// How often the key is looked for when nothing says that it may be gone.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Seals with the key that all replicas share. Where Redis has lost it, the first replica that sees it brings its
/// own back; where another was made meanwhile, that one seals and the one before still opens.
pub(crate) struct Sealing {
    broker: Broker,
    /// Notified when the connection to Redis is there, or there again.
    pub(crate) outdated: Notify,
    /// Since the first session.
    sealer: RwLock<Option<Shared>>,
}

#[derive(Clone)]
struct Shared {
    key: [u8; KEY_BYTES],
    sealer: Arc<Sealer>,
}

impl Sealing {
    pub(crate) fn new(broker: Broker) -> Arc<Self> {
        Arc::new(Self { broker, outdated: Notify::new(), sealer: RwLock::default() })
    }

    /// What seals now.
    pub(crate) async fn sealer(&self) -> Result<Arc<Sealer>, Refusal> {
        if let Some(shared) = self.shared() {
            return Ok(shared.sealer);
        }
        let key = self.broker.session_key(Sealer::new_key().map_err(no_random)?).await?;
        Ok(self.take(key, None))
    }

    /// Looks whether the key is still the one that is kept.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.outdated.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the key of sessions cannot be looked for");
            }
        }
    }

    async fn look(&self) -> Result<(), BrokerError> {
        let Some(known) = self.shared() else { return Ok(()) };
        let key = self.broker.session_key(known.key).await?;
        if key != known.key {
            tracing::warn!(
                "another replica has made a key of sessions: sessions of the one before still open here"
            );
            self.take(key, Some(known.key));
        }
        Ok(())
    }

    fn shared(&self) -> Option<Shared> {
        self.sealer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, key: [u8; KEY_BYTES], before: Option<[u8; KEY_BYTES]>) -> Arc<Sealer> {
        let sealer = Arc::new(Sealer::new(&key, before.as_slice()));
        let shared = Shared { key, sealer: Arc::clone(&sealer) };
        *self.sealer.write().unwrap_or_else(PoisonError::into_inner) = Some(shared);
        sealer
    }
}

#[cfg(test)]
mod tests {
    use carillon_broker::Broker;

    use super::*;
    use crate::seal::Session;

    fn broker() -> Broker {
        Broker::memory(Arc::new(|| 0)).0
    }

    #[tokio::test]
    async fn a_key_that_was_lost_is_brought_back_by_whoever_has_it() {
        let sealing = Sealing::new(broker());
        let token = sealing.sealer().await.unwrap().seal(&Session::new(0).unwrap()).unwrap();
        // Another Redis, without anything.
        let later =
            Sealing { broker: broker(), outdated: Notify::new(), sealer: RwLock::new(sealing.shared()) };
        later.look().await.unwrap();
        let new = Sealing::new(later.broker.clone());
        assert!(new.sealer().await.unwrap().open(&token, 0).is_ok(), "a replica that starts then");
    }

    #[tokio::test]
    async fn where_another_was_made_both_open_and_the_new_one_seals() {
        let sealing = Sealing::new(broker());
        let session = Session::new(0).unwrap();
        let token = sealing.sealer().await.unwrap().seal(&session).unwrap();
        let new = Sealing::new(broker());
        let other = new.sealer().await.unwrap();
        let later = Sealing {
            broker: new.broker.clone(),
            outdated: Notify::new(),
            sealer: RwLock::new(sealing.shared()),
        };
        later.look().await.unwrap();
        let sealer = later.sealer().await.unwrap();
        assert_eq!(sealer.open(&token, 0), Ok(session));
        assert!(other.open(&sealer.seal(&session).unwrap(), 0).is_ok());
    }
}
