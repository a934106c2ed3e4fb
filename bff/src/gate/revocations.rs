use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_auth::seal::KeyId;
use carillon_auth::token::REVOCATIONS_KEEP_MIN_S;
use carillon_broker::limits::REVOCATIONS_KEEP_S;
use carillon_broker::{Broker, BrokerError, Revocation};
use carillon_protocol::Backoff;
use carillon_service::Latch;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::delivery::hub::{Credential, Hub};
use crate::metrics;

/// Those that are too old to matter are dropped this often. Redis keeps as many as there may be, so no more come meanwhile.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// The longest pause after a reading that failed.
const RETRY_CAP_MS: u64 = 1_000;
// Redis keeps a revocation for at least as long as the token that it is of.
const _: () = assert!(REVOCATIONS_KEEP_MIN_S == REVOCATIONS_KEEP_S);

/// Which tokens were revoked, as this replica knows it: read whole whenever the connection to Redis
/// is there, and followed from then on. Joins look here, since asking Redis for each would cost a round trip.
///
/// What a replica knows only grows, until it is too old to matter: a Redis that has lost its data gets it back from the
/// replicas, as it does not lose a revocation that was answered with success.
pub(crate) struct Revocations {
    /// Seconds that they matter.
    keep_s: u64,
    /// Notified when they are to be read.
    outdated: Notify,
    known: Mutex<Known>,
}

/// Up to which second since 1970 the tokens of each are refused.
type Until = HashMap<Revoked, u64>;

#[derive(Default)]
struct Known {
    until: Until,
    /// Whether all were read once.
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
        Self { keep_s, outdated: Notify::new(), known: Mutex::default() }
    }

    /// Whether a credential was revoked; `None` while that is not known.
    pub(crate) fn refuse(&self, credential: &Credential) -> Option<bool> {
        let known = self.lock();
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

    /// Whether sessions of this key were called back, as far as that is known.
    pub(crate) fn has_ended(&self, key: &KeyId) -> bool {
        self.lock().until.contains_key(&Revoked::SessionKey(key.to_string()))
    }

    /// Takes in that what is known may be old: the connection to Redis is there, or there again.
    pub(crate) fn outdated(&self) {
        self.outdated.notify_one();
    }

    /// Takes in one more, and shuts out whom it concerns.
    pub(crate) fn revoked(&self, one: &Revocation, hub: &Hub) {
        raise(&mut self.lock().until, one.clone());
        self.shut_out(hub);
    }

    /// Reads all that there are whenever the connection is there again: what was published before is missed.
    /// Until the first time, nobody can be let in by a token.
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
                () = self.outdated.notified() => {}
                () = tokio::time::sleep(PRUNE_EVERY) => {
                    self.lock().prune(self.keep_s, clock() / 1_000);
                    continue;
                }
            }
            let read = async {
                let stored = broker.revocations().await?;
                let missing = self.merge(stored, clock() / 1_000);
                if !missing.is_empty() {
                    tracing::warn!(
                        revocations = missing.len(),
                        "Redis lacks revocations; they are written again"
                    );
                    metrics::revocations_restored(missing.len());
                    broker.restore_revocations(&missing).await?;
                }
                Ok::<_, BrokerError>(())
            };
            match read.await {
                Ok(()) => {
                    backoff.reset();
                    self.shut_out(&hub);
                    known.set(true);
                }
                Err(error) => {
                    tracing::debug!(%error, "the revocations cannot be read");
                    tokio::time::sleep(Duration::from_millis(backoff.next_ms(fastrand::f64()))).await;
                    self.outdated();
                }
            }
        }
    }

    fn shut_out(&self, hub: &Hub) {
        let count = hub.close_readers(|credential| self.refuse(credential) == Some(true));
        if count > 0 {
            metrics::revoked(count);
        }
    }

    /// Takes in what Redis has, and returns what it lacks.
    fn merge(&self, stored: Vec<Revocation>, now_s: u64) -> Vec<Revocation> {
        let mut stored_until = Until::new();
        stored.into_iter().for_each(|one| raise(&mut stored_until, one));
        let mut known = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        revocations.refuse(&credential)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_goes_while_the_connection_stays() {
        let now_s = Arc::new(AtomicU64::new(NOW_S));
        let reading = Arc::clone(&now_s);
        let clock: Clock = Arc::new(move || reading.load(Ordering::Relaxed) * 1_000);
        let (broker, _faults) = Broker::memory(Arc::clone(&clock));
        let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
        let revocations = Arc::<Revocations>::default();
        let (stop, read) = (CancellationToken::new(), Readiness::default().latch("revocations"));
        let running = Arc::clone(&revocations).run(broker, Arc::clone(&hub), clock, read, stop.clone());
        let known = || revocations.lock().until.len();
        let working = async {
            revocations.revoked(&of("ann", NOW_S), &hub);
            tokio::time::sleep(2 * PRUNE_EVERY).await;
            assert_eq!(known(), 1);
            now_s.fetch_add(REVOCATIONS_KEEP_S + 1, Ordering::Relaxed);
            revocations.revoked(&of("ben", NOW_S + REVOCATIONS_KEEP_S), &hub);
            tokio::time::sleep(2 * PRUNE_EVERY).await;
            assert_eq!(known(), 1, "without a new connection");
            stop.cancel();
        };
        let (ran, ()) = tokio::join!(running, working);
        ran.unwrap();
    }

    #[test]
    fn what_a_replica_knows_only_grows_and_redis_gets_back_what_it_lost() {
        let revocations = Revocations::default();
        let add = |one: Revocation| raise(&mut revocations.lock().until, one);
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
        assert_eq!(revocations.merge(vec![], later_s), [], "no token is good for so long");
        assert_eq!(refused(&revocations, "ann"), Some(false));
    }
}
