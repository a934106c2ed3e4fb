use std::sync::Arc;
use std::time::Duration;

use carillon_broker::{Batch, Broker, BrokerError, Claimed, Dead, Event, FanOut, Fanout, Stored, heard_as};
use carillon_protocol::{Backoff, Entry, Position};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::metrics;

/// The list is looked at this often even if no wake-up comes.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The longest pause after a claim that failed.
const RETRY_CAP_MS: u64 = 1_000;

/// Takes entries from the list, as one of several replicas that race for them.
pub(crate) struct Dispatch {
    pub(crate) broker: Broker,
    pub(crate) hub: Arc<Hub>,
    pub(crate) replica: Arc<str>,
    pub(crate) fan_out: FanOut,
    /// Notified by wake-ups and reconnects; what comes while a claim runs coalesces into one more.
    pub(crate) wake: Arc<Notify>,
}

impl Dispatch {
    /// Claims at start, at every wake-up, and on a poll, until the list is empty, one claim at a time.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            // A claim that was begun is finished: its refusals are ours to write down.
            let pause = match self.broker.claim(&self.replica, self.fan_out).await {
                Ok(batch) => {
                    backoff.reset();
                    let more = batch.waiting > 0;
                    self.take(batch).await;
                    if more { Duration::ZERO } else { POLL_EVERY }
                }
                Err(error) => {
                    metrics::claim_failed();
                    let wait_ms = backoff.next_ms(fastrand::f64());
                    if backoff.attempt() == 1 {
                        tracing::warn!(retry.ms = wait_ms, %error, "cannot claim");
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
        }
    }

    async fn take(&self, batch: Batch) {
        metrics::claimed(&batch);
        if let Some(fault) = batch.faults.first() {
            let faults = batch.faults.len();
            tracing::error!(
                faults,
                fault,
                "Redis refused what follows a claim: readers may wait until they turn to history"
            );
        }
        if self.fan_out == FanOut::All {
            self.hub.claimed_in(&batch.epoch);
        }
        for refused in &batch.refused {
            self.refused(&refused.reason, &refused.detail, Position::ZERO);
        }
        let mut missing = 0;
        for Claimed { audience, stored } in batch.claimed {
            if let Err(refusal) = Entry::read(&stored.raw, stored.position) {
                self.refused(refusal.reason.as_str(), &refusal.detail, stored.position);
                // Each attempt takes seconds when Redis has vanished, and a stop does not wait for 64 of them.
                if missing > 0 || self.bury(&refusal, stored).await.is_err() {
                    missing += 1;
                }
            } else if self.fan_out == FanOut::Own {
                let (epoch, claimed_by) = (batch.epoch.clone(), self.replica.to_string());
                let (audience, entries) = (heard_as(&audience), vec![stored]);
                self.hub.hear(&Event::Fanout(Fanout { audience, epoch, claimed_by, entries }));
            }
        }
        if missing > 0 {
            tracing::error!(entries = missing, "refused entries are missing from the dead list");
        }
    }

    fn refused(&self, reason: &str, detail: &str, position: Position) {
        metrics::refused(reason);
        tracing::warn!(entry.position = %position, reason, detail, "an entry that cannot be read went to the dead list");
    }

    async fn bury(&self, refusal: &carillon_protocol::Refusal, stored: Stored) -> Result<(), BrokerError> {
        let dead = Dead {
            reason: refusal.reason.as_str().to_owned(),
            detail: refusal.detail.clone(),
            claimed_by: self.replica.to_string(),
            raw: stored.raw,
        };
        let buried = self.broker.bury(&dead).await;
        if let Err(error) = &buried {
            tracing::error!(entry.position = %stored.position, %error, "cannot write to the dead list");
        }
        buried
    }
}

#[cfg(test)]
mod tests {
    use carillon_broker::{Kind, Names, Subscriptions};
    use carillon_harness::{Proxy, RedisServer};
    use carillon_protocol::Audience;

    use super::*;

    #[tokio::test]
    async fn the_first_entry_that_cannot_be_buried_is_the_last_that_is_tried() {
        let server = RedisServer::start();
        let proxy = Proxy::start(server.addr()).await;
        let broker = Broker::redis(&format!("redis://{}", proxy.addr()), Names::default()).unwrap();
        let dispatch = Dispatch {
            broker,
            hub: Arc::new(Hub::new(FanOut::All, Subscriptions::default())),
            replica: "bff-1".into(),
            fan_out: FanOut::All,
            wake: Arc::default(),
        };
        let unreadable = |ms| {
            let position = Position { ms, n: 0 };
            let stored =
                Stored { position, prev: Position::ZERO, kind: Kind::Notification, raw: b"{".to_vec() };
            Claimed { audience: Audience::Everyone, stored }
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
        assert_eq!(dispatch.broker.dead().await.unwrap().len(), 4);
        let before = proxy.accepted();
        proxy.black_hole();
        proxy.cut();
        dispatch.take(batch).await;
        // A lost connection is noticed by the command that fails, and no other makes a new one.
        assert!(proxy.accepted() - before <= 1, "{}", proxy.accepted() - before);
    }
}
