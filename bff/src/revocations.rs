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
    known: Mutex<Known>,
}

/// Up to which second since 1970 the tokens of each are refused.
type Until = HashMap<Revoked, u64>;

#[derive(Default)]
struct Known {
    /// `None` until it was read once.
    all: Option<Until>,
    /// What was heard since the present reading began: its answer may be older.
    meanwhile: Option<Until>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Revoked {
    User(String),
    Token(String),
}

impl Revocations {
    /// Whether a credential was called back; `None` while that is not known.
    pub(crate) fn refuse(&self, credential: &Credential) -> Option<bool> {
        let known = self.lock();
        let known = known.all.as_ref()?;
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
                self.add(one);
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
            self.lock().meanwhile = Some(Until::new());
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

    /// Takes in what a reading answered, and what was heard while it was on its way.
    fn replace(&self, all: Vec<Revocation>) {
        let mut known = self.lock();
        let mut until: Until = known.meanwhile.take().unwrap_or_default();
        all.into_iter().for_each(|one| raise(&mut until, one));
        known.all = Some(until);
    }

    /// Takes in one more. Before the first reading it is passed over: that will have it.
    fn add(&self, one: &Revocation) {
        let mut known = self.lock();
        let Known { all, meanwhile } = &mut *known;
        for until in all.iter_mut().chain(meanwhile) {
            raise(until, one.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: &str, until_s: u64) -> Revocation {
        Revocation::User { user: user.to_owned(), until_s }
    }

    fn refused(revocations: &Revocations, user: &str) -> Option<bool> {
        let credential = Credential { user: user.to_owned(), token_id: None, issued_at_s: 5 };
        revocations.refuse(&credential)
    }

    #[test]
    fn what_is_heard_while_all_are_read_is_not_forgotten() {
        let revocations = Revocations::default();
        let begin = || revocations.lock().meanwhile = Some(Until::new());
        begin();
        revocations.add(&of("ann", 7));
        assert_eq!(refused(&revocations, "ann"), None, "nothing was read yet");
        revocations.replace(vec![of("ben", 6)]);
        let all = ["ann", "ben", "cem"].map(|user| refused(&revocations, user));
        assert_eq!(all, [Some(true), Some(true), Some(false)]);
        begin();
        revocations.add(&of("cem", 8));
        assert_eq!(refused(&revocations, "cem"), Some(true), "at once");
        revocations.replace(vec![of("ben", 6), of("cem", 4)]);
        let all = ["ann", "ben", "cem"].map(|user| refused(&revocations, user));
        assert_eq!(all, [Some(false), Some(true), Some(true)], "ann's is over, cem's newer one counts");
    }
}
