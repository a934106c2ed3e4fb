use std::sync::Arc;
use std::time::Duration;

use carillon_broker::{Batch, Broker, BrokerError, Claimed, Dead, FanOut, Fanout, channel_audience};
use carillon_protocol::{Backoff, Entry, Position, Refusal};
use carillon_service::Latch;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::delivery::hub::Hub;
use crate::metrics;
use crate::random::Random;

/// The interval of polls of the list when no wake-up arrives.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The longest time without a claim, even while the list is empty: a claim that succeeds proves that the next one would.
const PROBE_EVERY: Duration = Duration::from_secs(4);
/// The longest pause after a failed claim.
const RETRY_CAP_MS: u64 = 1_000;
/// A replica that claimed nothing lately waits up to this long before it polls the list. So one replica wakes before the
/// others, and the entries that it claims cost the others no script.
const YIELD_MAX: Duration = Duration::from_millis(2);
/// A replica that claimed something within this time polls the list without that wait.
const FIRST_FOR: Duration = Duration::from_millis(100);

/// Claims entries from the list, as one of several replicas that compete for them.
pub(crate) struct Dispatch {
    pub(crate) broker: Broker,
    pub(crate) hub: Arc<Hub>,
    pub(crate) replica: Arc<str>,
    pub(crate) fan_out: FanOut,
    /// Notified by wake-ups and reconnects. Notifications that arrive while a claim runs cause one more claim.
    pub(crate) wake: Arc<Notify>,
    /// Set at each successful claim.
    pub(crate) claims: Latch,
    /// Spreads retries, and which replica looks first.
    pub(crate) random: Random,
}

/// Whether entries wait in the list after a poll.
enum Polled {
    /// Another claim may find more.
    More,
    /// The list is empty.
    Empty,
}

impl Dispatch {
    /// Claims at start, at every wake-up and at every poll, one claim at a time, until the list is empty.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        let (mut succeeded_at, mut claimed_at): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            // The claim is not in the select!: entries that it refuses must still be written to the dead list.
            let pause = match self.poll(&mut succeeded_at, &mut claimed_at).await {
                Ok(polled) => {
                    backoff.reset();
                    match polled {
                        Polled::More => Duration::ZERO,
                        Polled::Empty => POLL_EVERY,
                    }
                }
                Err(error) => {
                    metrics::claim_failed();
                    let wait_ms = backoff.next_ms((self.random)());
                    if backoff.attempt() == 1 {
                        tracing::warn!(retry.ms = wait_ms, %error, "cannot claim entries");
                    }
                    Duration::from_millis(wait_ms)
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.wake.notified(), if !pause.is_zero() => {}
                () = tokio::time::sleep(pause) => {}
            }
            if claimed_at.is_none_or(|at| at.elapsed() >= FIRST_FOR) {
                tokio::time::sleep(YIELD_MAX.mul_f64((self.random)())).await;
            }
        }
    }

    /// Claims a batch if entries wait. Without entries this is one cheap LLEN.
    async fn poll(
        &self,
        succeeded_at: &mut Option<Instant>,
        claimed_at: &mut Option<Instant>,
    ) -> Result<Polled, BrokerError> {
        let is_probe = succeeded_at.is_none_or(|at| at.elapsed() >= PROBE_EVERY);
        if !is_probe && self.broker.waiting().await? == 0 {
            return Ok(Polled::Empty);
        }
        metrics::claim_begun();
        let batch = self.broker.claim(&self.replica, self.fan_out).await?;
        *succeeded_at = Some(Instant::now());
        self.claims.set(true);
        if batch.taken() > 0 {
            *claimed_at = *succeeded_at;
        }
        let polled = if batch.waiting > 0 { Polled::More } else { Polled::Empty };
        self.take(batch).await;
        Ok(polled)
    }

    async fn take(&self, batch: Batch) {
        metrics::claimed(&batch);
        if let Some(fault) = batch.faults.first() {
            let faults = batch.faults.len();
            tracing::error!(
                faults,
                fault,
                "Redis refused commands after a claim: readers may wait until they read history"
            );
        }
        for refused in &batch.refused {
            report_refused(&refused.reason, &refused.detail, Position::ZERO);
        }
        let mut missing = 0;
        for claimed in batch.claimed {
            match Entry::read(&claimed.stored.raw, claimed.stored.position) {
                Err(refusal) => {
                    report_refused(refusal.reason.as_str(), &refusal.detail, claimed.stored.position);
                    // Each attempt takes seconds when Redis is unreachable, and a shutdown must not wait for 64 of them.
                    if missing > 0 || self.bury(&refusal, claimed).await.is_err() {
                        missing += 1;
                    }
                }
                Ok(_) if self.fan_out == FanOut::Own => {
                    let (epoch, claimed_by) = (batch.epoch.clone(), self.replica.to_string());
                    let (audience, entries) = (channel_audience(&claimed.audience), vec![claimed.stored]);
                    self.hub.fanout(&Fanout { audience, epoch, claimed_by, entries });
                }
                Ok(_) => {}
            }
        }
        if missing > 0 {
            tracing::error!(entries = missing, "refused entries are missing from the dead list");
        }
    }

    async fn bury(&self, refusal: &Refusal, claimed: Claimed) -> Result<(), BrokerError> {
        let Claimed { stored, remembered, .. } = claimed;
        let dead = Dead {
            reason: refusal.reason.as_str().to_owned(),
            detail: refusal.detail.clone(),
            claimed_by: self.replica.to_string(),
            raw: stored.raw,
            ..Dead::default()
        };
        let buried = self.broker.bury(&dead, &remembered).await;
        if let Err(error) = &buried {
            tracing::error!(entry.position = %stored.position, %error, "cannot write to the dead list");
        }
        buried
    }
}

fn report_refused(reason: &str, detail: &str, position: Position) {
    metrics::refused(reason);
    tracing::warn!(entry.position = %position, reason, detail, "moved an unreadable entry to the dead list");
}

#[cfg(test)]
mod tests {
    use carillon_broker::{DeadList, EntryKind, Names, Stored, Subscriptions};
    use carillon_harness::{Proxy, RedisServer};
    use carillon_protocol::Audience;
    use carillon_service::Readiness;

    use super::*;

    fn dispatch(broker: Broker, readiness: &Readiness) -> Dispatch {
        Dispatch {
            broker,
            hub: Arc::new(Hub::new(FanOut::All, Subscriptions::default())),
            replica: "bff-1".into(),
            fan_out: FanOut::All,
            wake: Arc::default(),
            claims: readiness.latch_for("claims", Duration::from_secs(10)),
            random: Arc::new(|| 0.5),
        }
    }

    #[tokio::test]
    async fn after_the_first_failed_write_to_the_dead_list_no_other_is_tried() {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.addr()).await;
        let broker = Broker::redis(&format!("redis://{}", proxy.addr()), Names::default()).unwrap();
        let dispatch = dispatch(broker, &Readiness::default());
        let unreadable = |ms| {
            let position = Position { ms, n: 0 };
            let stored =
                Stored { position, prev: Position::ZERO, kind: EntryKind::Notification, raw: b"{".to_vec() };
            Claimed { audience: Audience::Everyone, stored, remembered: vec![] }
        };
        let batch = Batch {
            epoch: "e".to_owned(),
            waiting: 0,
            repeated: 0,
            refused: vec![],
            claimed: (0..4).map(unreadable).collect(),
            faults: vec![],
        };
        dispatch.take(batch.clone()).await;
        assert_eq!(dispatch.broker.dead(DeadList::Producers).await.unwrap().len(), 4);
        let before = proxy.accepted();
        proxy.black_hole();
        proxy.cut();
        dispatch.take(batch).await;
        // The command that fails finds the lost connection, and no other command opens a new one.
        assert!(proxy.accepted() - before <= 1, "{}", proxy.accepted() - before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_whose_claims_fail_is_not_ready_even_while_the_list_is_empty() {
        let (broker, faults) = Broker::memory(Arc::new(|| 1_000));
        let readiness = Readiness::default();
        let stop = CancellationToken::new();
        let running = dispatch(broker, &readiness).run(stop.clone());
        let test = async {
            let after = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;
            after(1).await;
            assert!(readiness.is_ready());
            // A full server still reads the list and refuses claims.
            faults.fill(true);
            after(15).await;
            assert_eq!(readiness.missing(), ["claims"]);
            faults.fill(false);
            after(5).await;
            assert!(readiness.is_ready());
            stop.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = running => ended.unwrap(),
            () = test => {}
        }
    }
}
