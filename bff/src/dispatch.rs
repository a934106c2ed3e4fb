use std::sync::Arc;
use std::time::Duration;

use carillon_broker::{Batch, Broker, Claimed, Dead, Event, FanOut, Fanout, Stored};
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
        for refused in &batch.refused {
            self.refused(&refused.reason, &refused.detail, Position::ZERO);
        }
        for Claimed { audience, stored } in batch.claimed {
            if let Err(refusal) = Entry::read(&stored.raw, stored.position) {
                self.refused(refusal.reason.as_str(), &refusal.detail, stored.position);
                self.bury(&refusal, stored).await;
            } else if self.fan_out == FanOut::Own {
                let (epoch, claimed_by) = (batch.epoch.clone(), self.replica.to_string());
                self.hub.hear(&Event::Fanout(Fanout { audience, epoch, claimed_by, entries: vec![stored] }));
            }
        }
    }

    fn refused(&self, reason: &str, detail: &str, position: Position) {
        metrics::refused(reason);
        tracing::warn!(entry.position = %position, reason, detail, "an entry that cannot be read went to the dead list");
    }

    async fn bury(&self, refusal: &carillon_protocol::Refusal, stored: Stored) {
        let dead = Dead {
            reason: refusal.reason.as_str().to_owned(),
            detail: refusal.detail.clone(),
            claimed_by: self.replica.to_string(),
            raw: stored.raw,
        };
        if let Err(error) = self.broker.bury(&dead).await {
            tracing::error!(entry.position = %stored.position, %error, "a refused entry is missing from the dead list");
        }
    }
}
