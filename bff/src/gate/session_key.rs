//! The key that seals sessions: generated once for all replicas, and stored beside their history.

use std::sync::Arc;
use std::time::Duration;

use carillon_auth::seal::{KEY_BYTES, KeyId, Sealer};
use carillon_broker::Broker;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::gate::caller::no_random;
use crate::gate::revocations::Revocations;
use crate::refusal::Refusal;

/// The interval at which the key is read when no event shows that it may be gone.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// Seals sessions with the key that all replicas share. If Redis has lost the key, the first replica that notices writes its
/// own back. If another key was generated in the meantime, that one seals, and the one before still opens.
///
/// A revoked key opens nothing any more and is not written back. A replica that finds it in Redis replaces it with a new
/// one.
pub(crate) struct SessionKey {
    broker: Broker,
    revocations: Arc<Revocations>,
    /// Notified when the connection to Redis was established.
    pub(crate) reload: Notify,
    /// Set since the first session.
    sealer: RwLock<Option<Current>>,
}

#[derive(Clone)]
struct Current {
    key: [u8; KEY_BYTES],
    /// The key before, if it still opens sessions.
    before: Option<[u8; KEY_BYTES]>,
    sealer: Arc<Sealer>,
}

impl SessionKey {
    pub(crate) fn new(broker: Broker, revocations: Arc<Revocations>) -> Arc<Self> {
        Arc::new(Self { broker, revocations, reload: Notify::new(), sealer: RwLock::default() })
    }

    /// Returns the current sealer.
    pub(crate) async fn sealer(&self) -> Result<Arc<Sealer>, Refusal> {
        match self.current() {
            Some(current) if self.is_revoked(&current.key) => {}
            Some(Current { key, before: Some(before), .. }) if self.is_revoked(&before) => {
                return Ok(self.set(key, None));
            }
            Some(current) => return Ok(current.sealer),
            None => {}
        }
        let key = self.stored_key(Sealer::new_key().map_err(no_random)?).await?;
        Ok(self.set(key, None))
    }

    /// Returns the key in Redis: `own` where there was none, and a new one in place of a revoked one.
    async fn stored_key(&self, own: [u8; KEY_BYTES]) -> Result<[u8; KEY_BYTES], Refusal> {
        let key = self.broker.session_key(own).await?;
        if !self.is_revoked(&key) {
            return Ok(key);
        }
        let fresh = Sealer::new_key().map_err(no_random)?;
        Ok(self.broker.replace_session_key(key, fresh).await?)
    }

    fn is_revoked(&self, key: &[u8; KEY_BYTES]) -> bool {
        self.revocations.is_key_revoked(&KeyId::of(key))
    }

    /// Checks from time to time whether the key is still the one in Redis.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.reload.notified() => {}
                () = tokio::time::sleep(CHECK_EVERY) => {}
            }
            if let Err(error) = self.check().await {
                tracing::debug!(error = error.to_line(), "cannot read the key of sessions");
            }
        }
    }

    async fn check(&self) -> Result<(), Refusal> {
        let Some(known) = self.current() else { return Ok(()) };
        if self.is_revoked(&known.key) {
            // This replaces the revoked key in Redis, even if no session is opened for a long time.
            return self.sealer().await.map(|_| ());
        }
        let key = self.stored_key(known.key).await?;
        if key != known.key {
            tracing::warn!(
                "another replica has generated a key of sessions: this replica still opens sessions of the one before"
            );
            self.set(key, Some(known.key));
        }
        Ok(())
    }

    fn current(&self) -> Option<Current> {
        self.sealer.read().clone()
    }

    fn set(&self, key: [u8; KEY_BYTES], before: Option<[u8; KEY_BYTES]>) -> Arc<Sealer> {
        let sealer = Arc::new(Sealer::new(&key, before.as_slice()));
        let current = Current { key, before, sealer: Arc::clone(&sealer) };
        *self.sealer.write() = Some(current);
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

    /// Returns a replica with the same key and revocations, on another Redis.
    fn with(session_key: &SessionKey, broker: Broker) -> SessionKey {
        let revocations = Arc::clone(&session_key.revocations);
        SessionKey { broker, revocations, reload: Notify::new(), sealer: RwLock::new(session_key.current()) }
    }

    #[tokio::test]
    async fn a_revoked_key_opens_nothing_and_is_not_written_back() {
        let hub = Hub::new(FanOut::All, Subscriptions::default());
        let session_key = SessionKey::new(broker(), Arc::default());
        let sealer = session_key.sealer().await.unwrap();
        let (old, token) = (sealer.key().clone(), sealer.seal(&Session::new(0).unwrap()).unwrap());
        let revocation = Revocation::SessionKey { key_id: old.to_string(), until_s: 0 };
        session_key.revocations.add(&revocation, &hub);
        let fresh = session_key.sealer().await.unwrap();
        assert!(fresh.key() != &old && fresh.open(&token, 0).is_err());
        let stored_key = SessionKey::new(session_key.broker.clone(), Arc::default()).sealer().await.unwrap();
        assert_eq!(stored_key.key(), fresh.key(), "and replaced in Redis");
        // A replica that has it as the key before, and one whose Redis has the old key again.
        let other = with(&session_key, broker());
        other.set([1; KEY_BYTES], session_key.current().map(|current| current.key));
        other.revocations.add(&Revocation::SessionKey { key_id: fresh.key().to_string(), until_s: 0 }, &hub);
        let token = fresh.seal(&Session::new(0).unwrap()).unwrap();
        assert!(other.sealer().await.unwrap().open(&token, 0).is_err());
        other.set([2; KEY_BYTES], None);
        other.check().await.unwrap();
        assert!(!other.is_revoked(&other.current().unwrap().key));
    }

    #[tokio::test]
    async fn a_lost_key_is_written_back_by_a_replica_that_has_it() {
        let session_key = SessionKey::new(broker(), Arc::default());
        let token = session_key.sealer().await.unwrap().seal(&Session::new(0).unwrap()).unwrap();
        // Another Redis, which is empty.
        let later = with(&session_key, broker());
        later.check().await.unwrap();
        let new = SessionKey::new(later.broker.clone(), Arc::default());
        assert!(new.sealer().await.unwrap().open(&token, 0).is_ok(), "a replica that starts then");
    }

    #[tokio::test]
    async fn after_another_key_was_generated_both_open_and_the_new_one_seals() {
        let session_key = SessionKey::new(broker(), Arc::default());
        let session = Session::new(0).unwrap();
        let token = session_key.sealer().await.unwrap().seal(&session).unwrap();
        let new = SessionKey::new(broker(), Arc::default());
        let other = new.sealer().await.unwrap();
        let later = with(&session_key, new.broker.clone());
        later.check().await.unwrap();
        let sealer = later.sealer().await.unwrap();
        assert_eq!(sealer.open(&token, 0), Ok(session));
        assert!(other.open(&sealer.seal(&session).unwrap(), 0).is_ok());
    }
}
