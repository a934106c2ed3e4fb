use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_auth::seal::KeyId;
use carillon_auth::token::REVOCATIONS_KEEP_MIN_S;
use carillon_broker::limits::REVOCATIONS_KEEP_S;
use carillon_broker::{Broker, BrokerError, Revocation};
use carillon_protocol::Backoff;
use carillon_service::Latch;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::delivery::hub::{Credential, Hub};
use crate::metrics;

/// The interval at which expired revocations are dropped. Redis bounds their number, so no more than that arrive in the
/// meantime.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// The longest pause after a failed read.
const RETRY_CAP_MS: u64 = 1_000;
// Redis keeps a revocation for at least as long as the token that it is of.
const _: () = assert!(REVOCATIONS_KEEP_MIN_S == REVOCATIONS_KEEP_S);

/// The revocations that this replica knows. All are read whenever the connection to Redis is established, and later ones
/// arrive over fan-out. Each join checks them here, since a query to Redis would cost a round trip.
///
/// A replica forgets a revocation only once it has expired. If Redis has lost its data, the replicas write it back, so that
/// no revocation is lost that was answered with success.
pub(crate) struct Revocations {
    /// How long a revocation is kept, in seconds.
    keep_s: u64,
    /// Notified when all revocations have to be read again.
    reload: Notify,
    known: Mutex<Known>,
}

/// The time in seconds since 1970 up to which issued tokens are refused.
type Until = HashMap<Revoked, u64>;

#[derive(Default)]
struct Known {
    until: Until,
    /// Whether all revocations were read at least once.
    complete: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Revoked {
    User(String),
    Token(String),
    Session(String),
    SessionKey(String),
}

impl Default for Revocations {
    fn default() -> Self {
        Self::kept_for(REVOCATIONS_KEEP_S)
    }
}

impl Revocations {
    pub(crate) fn kept_for(keep_s: u64) -> Self {
        Self { keep_s, reload: Notify::new(), known: Mutex::default() }
    }

    /// Whether a credential was revoked; `None` while the revocations are unknown.
    pub(crate) fn is_revoked(&self, credential: &Credential) -> Option<bool> {
        let known = self.known.lock();
        let until = |revoked| known.until.get(&revoked).copied();
        let user = credential.user.clone().and_then(|user| until(Revoked::User(user)));
        let token = credential.token_id.clone().and_then(|id| until(Revoked::Token(id)));
        let session = credential.session.as_ref().and_then(|(id, key)| {
            until(Revoked::Session(id.to_string())).or(until(Revoked::SessionKey(key.to_string())))
        });
        let of_user = user.is_some_and(|until_s| credential.issued_at_s <= until_s);
        let is_refused = of_user || token.is_some() || session.is_some();
        (known.complete || is_refused).then_some(is_refused)
    }

    /// Whether sessions of this key are known to be revoked.
    pub(crate) fn is_key_revoked(&self, key: &KeyId) -> bool {
        self.known.lock().until.contains_key(&Revoked::SessionKey(key.to_string()))
    }

    /// Marks the revocations as possibly outdated: the connection to Redis was established.
    pub(crate) fn reload(&self) {
        self.reload.notify_one();
    }

    /// Adds a revocation, and closes its readers.
    pub(crate) fn add(&self, one: &Revocation, hub: &Hub) {
        raise(&mut self.known.lock().until, one.clone());
        self.close_readers(hub);
    }

    /// Reads all revocations whenever the connection is established, since those published before were missed. Before the
    /// first read, no token is accepted.
    pub(crate) async fn run(
        self: Arc<Self>,
        broker: Broker,
        hub: Arc<Hub>,
        clock: Clock,
        known: Latch,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.reload.notified() => {}
                () = tokio::time::sleep(PRUNE_EVERY) => {
                    self.known.lock().prune(self.keep_s, clock() / 1_000);
                    continue;
                }
            }
            let read = async {
                let stored = broker.revocations().await?;
                let missing = self.merge(stored, clock() / 1_000);
                if !missing.is_empty() {
                    tracing::warn!(
                        revocations = missing.len(),
                        "Redis has lost revocations; this replica writes them again"
                    );
                    metrics::revocations_restored(missing.len());
                    broker.restore_revocations(&missing).await?;
                }
                Ok::<_, BrokerError>(())
            };
            match read.await {
                Ok(()) => {
                    backoff.reset();
                    self.close_readers(&hub);
                    known.set(true);
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot read the revocations");
                    tokio::time::sleep(Duration::from_millis(backoff.next_ms(fastrand::f64()))).await;
                    self.reload();
                }
            }
        }
    }

    fn close_readers(&self, hub: &Hub) {
        let count = hub.close_readers(|credential| self.is_revoked(credential) == Some(true));
        if count > 0 {
            metrics::revoked(count);
        }
    }

    /// Adds the revocations of Redis, and returns those that Redis lacks.
    fn merge(&self, stored: Vec<Revocation>, now_s: u64) -> Vec<Revocation> {
        let mut stored_until = Until::new();
        stored.into_iter().for_each(|one| raise(&mut stored_until, one));
        let mut known = self.known.lock();
        known.prune(self.keep_s, now_s);
        let lacks = |(revoked, until_s): &(&Revoked, &u64)| {
            stored_until.get(revoked).is_none_or(|stored| stored < until_s)
        };
        let missing = known.until.iter().filter(lacks).map(|(revoked, until_s)| revoked.revocation(*until_s));
        let missing = missing.collect();
        for (revoked, until_s) in stored_until {
            let known = known.until.entry(revoked).or_default();
            *known = until_s.max(*known);
        }
        known.complete = true;
        missing
    }
}

impl Known {
    fn prune(&mut self, keep_s: u64, now_s: u64) {
        self.until.retain(|_, until_s| until_s.saturating_add(keep_s) >= now_s);
    }
}

impl Revoked {
    fn revocation(&self, until_s: u64) -> Revocation {
        match self.clone() {
            Self::User(user) => Revocation::User { user, until_s },
            Self::Token(token_id) => Revocation::Token { token_id, until_s },
            Self::Session(session_id) => Revocation::Session { session_id, until_s },
            Self::SessionKey(key_id) => Revocation::SessionKey { key_id, until_s },
        }
    }
}

fn raise(until: &mut Until, one: Revocation) {
    let (revoked, until_s) = key(one);
    let known = until.entry(revoked).or_default();
    *known = until_s.max(*known);
}

fn key(revocation: Revocation) -> (Revoked, u64) {
    match revocation {
        Revocation::User { user, until_s } => (Revoked::User(user), until_s),
        Revocation::Token { token_id, until_s } => (Revoked::Token(token_id), until_s),
        Revocation::Session { session_id, until_s } => (Revoked::Session(session_id), until_s),
        Revocation::SessionKey { key_id, until_s } => (Revoked::SessionKey(key_id), until_s),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use carillon_broker::{FanOut, Subscriptions};
    use carillon_service::Readiness;

    use super::*;

    const NOW_S: u64 = 1_000_000_000;

    fn of(user: &str, until_s: u64) -> Revocation {
        Revocation::User { user: user.to_owned(), until_s }
    }

    fn refused(revocations: &Revocations, user: &str) -> Option<bool> {
        let credential = Credential { user: Some(user.to_owned()), issued_at_s: 5, ..Credential::default() };
        revocations.is_revoked(&credential)
    }

    #[tokio::test(start_paused = true)]
    async fn expired_revocations_are_dropped_while_the_connection_stays() {
        let now_s = Arc::new(AtomicU64::new(NOW_S));
        let reading = Arc::clone(&now_s);
        let clock: Clock = Arc::new(move || reading.load(Ordering::Relaxed) * 1_000);
        let (broker, _faults) = Broker::memory(Arc::clone(&clock));
        let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
        let revocations = Arc::<Revocations>::default();
        let (stop, read) = (CancellationToken::new(), Readiness::default().latch("revocations"));
        let running = Arc::clone(&revocations).run(broker, Arc::clone(&hub), clock, read, stop.clone());
        let known = || revocations.known.lock().until.len();
        let working = async {
            revocations.add(&of("ann", NOW_S), &hub);
            tokio::time::sleep(2 * PRUNE_EVERY).await;
            assert_eq!(known(), 1);
            now_s.fetch_add(REVOCATIONS_KEEP_S + 1, Ordering::Relaxed);
            revocations.add(&of("ben", NOW_S + REVOCATIONS_KEEP_S), &hub);
            tokio::time::sleep(2 * PRUNE_EVERY).await;
            assert_eq!(known(), 1, "without a new connection");
            stop.cancel();
        };
        let (ran, ()) = tokio::join!(running, working);
        ran.unwrap();
    }

    #[test]
    fn redis_gets_back_the_revocations_that_it_lost() {
        let revocations = Revocations::default();
        let add = |one: Revocation| raise(&mut revocations.known.lock().until, one);
        add(of("ann", NOW_S));
        assert_eq!(refused(&revocations, "ann"), Some(true), "at once");
        assert_eq!(refused(&revocations, "ben"), None, "nothing was read yet");
        assert_eq!(revocations.merge(vec![of("ben", NOW_S)], NOW_S), [of("ann", NOW_S)], "it came meanwhile");
        let all = ["ann", "ben", "cem"].map(|user| refused(&revocations, user));
        assert_eq!(all, [Some(true), Some(true), Some(false)]);
        let mut missing = revocations.merge(vec![of("ben", NOW_S - 9)], NOW_S);
        missing.sort_by_key(|one| format!("{one:?}"));
        assert_eq!(
            missing,
            [of("ann", NOW_S), of("ben", NOW_S)],
            "Redis lost one and has an older state of one"
        );
        assert_eq!(refused(&revocations, "ben"), Some(true));
        let later_s = NOW_S + REVOCATIONS_KEEP_S + 1;
        assert_eq!(revocations.merge(vec![], later_s), [], "no token is valid for so long");
        assert_eq!(refused(&revocations, "ann"), Some(false));
    }
}
