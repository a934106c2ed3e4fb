//! The key that seals sessions: made once for all replicas, and kept where their history is.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use carillon_auth::seal::{KEY_BYTES, KeyId, Sealer};
use carillon_broker::Broker;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::gate::caller::no_random;
use crate::gate::revocations::Revocations;
use crate::refusal::Refusal;

/// How often the key is looked for when nothing says that it may be gone.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Seals with the key that all replicas share. Where Redis has lost it, the first replica that sees it brings its
/// own back; where another was made meanwhile, that one seals and the one before still opens.
///
/// A key that was called back is gone: it opens nothing any more, and is not brought back. Whoever finds it where the key is
/// kept puts a new one there.
pub(crate) struct Sealing {
    broker: Broker,
    revocations: Arc<Revocations>,
    /// Notified when the connection to Redis is there, or there again.
    pub(crate) outdated: Notify,
    /// Since the first session.
    sealer: RwLock<Option<Shared>>,
}

#[derive(Clone)]
struct Shared {
    key: [u8; KEY_BYTES],
    /// The key before, where that still opens.
    before: Option<[u8; KEY_BYTES]>,
    sealer: Arc<Sealer>,
}

impl Sealing {
    pub(crate) fn new(broker: Broker, revocations: Arc<Revocations>) -> Arc<Self> {
        Arc::new(Self { broker, revocations, outdated: Notify::new(), sealer: RwLock::default() })
    }

    /// What seals now.
    pub(crate) async fn sealer(&self) -> Result<Arc<Sealer>, Refusal> {
        match self.shared() {
            Some(shared) if self.has_ended(&shared.key) => {}
            Some(Shared { key, before: Some(before), .. }) if self.has_ended(&before) => {
                return Ok(self.take(key, None));
            }
            Some(shared) => return Ok(shared.sealer),
            None => {}
        }
        let key = self.kept(Sealer::new_key().map_err(no_random)?).await?;
        Ok(self.take(key, None))
    }

    /// The key that is kept: `own` where there is none, and a new one in the place of one that was called back.
    async fn kept(&self, own: [u8; KEY_BYTES]) -> Result<[u8; KEY_BYTES], Refusal> {
        let key = self.broker.session_key(own).await?;
        if !self.has_ended(&key) {
            return Ok(key);
        }
        let fresh = Sealer::new_key().map_err(no_random)?;
        Ok(self.broker.replace_session_key(key, fresh).await?)
    }

    fn has_ended(&self, key: &[u8; KEY_BYTES]) -> bool {
        self.revocations.has_ended(&KeyId::of(key))
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
                tracing::debug!(error = error.words(), "the key of sessions cannot be looked for");
            }
        }
    }

    async fn look(&self) -> Result<(), Refusal> {
        let Some(known) = self.shared() else { return Ok(()) };
        if self.has_ended(&known.key) {
            // Also where no session is opened for a long time, the key that is kept is a new one.
            return self.sealer().await.map(|_| ());
        }
        let key = self.kept(known.key).await?;
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
        let shared = Shared { key, before, sealer: Arc::clone(&sealer) };
        *self.sealer.write().unwrap_or_else(PoisonError::into_inner) = Some(shared);
        sealer
    }
}

#[cfg(test)]
mod tests {
    use carillon_broker::{FanOut, Revocation, Subscriptions};

    use super::*;
    use crate::delivery::hub::Hub;
    use carillon_auth::seal::Session;

    fn broker() -> Broker {
        Broker::memory(Arc::new(|| 0)).0
    }

    /// A replica that knows the same, and finds another Redis.
    fn with(sealing: &Sealing, broker: Broker) -> Sealing {
        let revocations = Arc::clone(&sealing.revocations);
        Sealing { broker, revocations, outdated: Notify::new(), sealer: RwLock::new(sealing.shared()) }
    }

    #[tokio::test]
    async fn a_key_that_was_called_back_opens_nothing_and_is_not_brought_back() {
        let hub = Hub::new(FanOut::All, Subscriptions::default());
        let sealing = Sealing::new(broker(), Arc::default());
        let sealer = sealing.sealer().await.unwrap();
        let (old, token) = (sealer.key().clone(), sealer.seal(&Session::new(0).unwrap()).unwrap());
        let revocation = Revocation::SessionKey { key_id: old.to_string(), until_s: 0 };
        sealing.revocations.revoked(&revocation, &hub);
        let fresh = sealing.sealer().await.unwrap();
        assert!(fresh.key() != &old && fresh.open(&token, 0).is_err());
        let kept = Sealing::new(sealing.broker.clone(), Arc::default()).sealer().await.unwrap();
        assert_eq!(kept.key(), fresh.key(), "and replaced where it is kept");
        // A replica that held it as the key before, and one whose Redis has the old one again.
        let other = with(&sealing, broker());
        other.take([1; KEY_BYTES], sealing.shared().map(|shared| shared.key));
        other
            .revocations
            .revoked(&Revocation::SessionKey { key_id: fresh.key().to_string(), until_s: 0 }, &hub);
        let token = fresh.seal(&Session::new(0).unwrap()).unwrap();
        assert!(other.sealer().await.unwrap().open(&token, 0).is_err());
        other.take([2; KEY_BYTES], None);
        other.look().await.unwrap();
        assert!(!other.has_ended(&other.shared().unwrap().key));
    }

    #[tokio::test]
    async fn a_key_that_was_lost_is_brought_back_by_whoever_has_it() {
        let sealing = Sealing::new(broker(), Arc::default());
        let token = sealing.sealer().await.unwrap().seal(&Session::new(0).unwrap()).unwrap();
        // Another Redis, without anything.
        let later = with(&sealing, broker());
        later.look().await.unwrap();
        let new = Sealing::new(later.broker.clone(), Arc::default());
        assert!(new.sealer().await.unwrap().open(&token, 0).is_ok(), "a replica that starts then");
    }

    #[tokio::test]
    async fn where_another_was_made_both_open_and_the_new_one_seals() {
        let sealing = Sealing::new(broker(), Arc::default());
        let session = Session::new(0).unwrap();
        let token = sealing.sealer().await.unwrap().seal(&session).unwrap();
        let new = Sealing::new(broker(), Arc::default());
        let other = new.sealer().await.unwrap();
        let later = with(&sealing, new.broker.clone());
        later.look().await.unwrap();
        let sealer = later.sealer().await.unwrap();
        assert_eq!(sealer.open(&token, 0), Ok(session));
        assert!(other.open(&sealer.seal(&session).unwrap(), 0).is_ok());
    }
}
