use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_broker::{Broker, Event, Revocation};
use carillon_protocol::Backoff;
use carillon_service::Latch;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::hub::{Credential, Hub};
use crate::metrics;

/// The longest pause after a reading that failed.
const RETRY_CAP_MS: u64 = 1_000;

/// Which tokens were called back, as this replica knows it: read whole whenever the connection to Redis
/// is there, and followed from then on. Joins look here, since asking Redis for each would cost a round trip.
#[derive(Default)]
pub(crate) struct Revocations {
    /// Notified when the connection to Redis is there, or there again.
    outdated: Notify,
    /// Up to which second since 1970 tokens are refused; `None` until it was read once.
    known: Mutex<Option<HashMap<Revoked, u64>>>,
}

#[derive(PartialEq, Eq, Hash)]
enum Revoked {
    User(String),
    Token(String),
}

impl Revocations {
    /// Whether a credential was called back; `None` while that is not known.
    pub(crate) fn refuse(&self, credential: &Credential) -> Option<bool> {
        let known = self.lock();
        let known = known.as_ref()?;
        let until = |revoked| known.get(&revoked).copied();
        let user = until(Revoked::User(credential.user.clone()));
        let token = credential.token_id.clone().and_then(|id| until(Revoked::Token(id)));
        Some(user.is_some_and(|until_s| credential.issued_at_s <= until_s) || token.is_some())
    }

    /// Takes in what the broker reports, and shuts out whom that concerns.
    pub(crate) fn hear(&self, event: &Event, hub: &Hub) {
        match event {
            Event::Up => self.outdated.notify_one(),
            Event::Revoked(one) => {
                self.add(one.clone());
                self.shut_out(hub);
            }
            _ => {}
        }
    }

    /// Reads all that there are whenever the connection is there again: what was said before is missed.
    /// Until the first time, nobody can be let in by a token.
    pub(crate) async fn run(
        self: Arc<Self>,
        broker: Broker,
        hub: Arc<Hub>,
        known: Latch,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.outdated.notified() => {}
            }
            match broker.revocations().await {
                Ok(all) => {
                    backoff.reset();
                    self.replace(all);
                    self.shut_out(&hub);
                    known.set(true);
                }
                Err(error) => {
                    tracing::debug!(%error, "the revocations cannot be read");
                    tokio::time::sleep(Duration::from_millis(backoff.next_ms(fastrand::f64()))).await;
                    self.outdated.notify_one();
                }
            }
        }
    }

    fn shut_out(&self, hub: &Hub) {
        let count = hub.shut_out(|credential| self.refuse(credential) == Some(true));
        if count > 0 {
            metrics::revoked(count);
        }
    }

    /// Takes in all that there are.
    fn replace(&self, all: Vec<Revocation>) {
        let mut known = HashMap::with_capacity(all.len());
        for one in all {
            let (revoked, until_s) = key(one);
            known.insert(revoked, until_s);
        }
        *self.lock() = Some(known);
    }

    /// Takes in one more. Before the first reading it is passed over: that will have it.
    fn add(&self, one: Revocation) {
        let (revoked, until_s) = key(one);
        if let Some(known) = self.lock().as_mut() {
            let until = known.entry(revoked).or_default();
            *until = until_s.max(*until);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<Revoked, u64>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(revocation: Revocation) -> (Revoked, u64) {
    match revocation {
        Revocation::User { user, until_s } => (Revoked::User(user), until_s),
        Revocation::Token { token_id, until_s } => (Revoked::Token(token_id), until_s),
    }
}
