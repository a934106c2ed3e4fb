//! Reads the entries that were missed while the connection to the broker was lost, once for each audience.

use std::sync::Arc;

use carillon_broker::{Broker, BrokerError};
use carillon_protocol::Cursor;
use tokio_util::sync::CancellationToken;

use crate::delivery::frame::Frame;
use crate::delivery::hub::{Hub, Refill};
use crate::metrics;

/// Maximum entries that are put back into a ring; its readers read history when more were missed.
const REFILL_MAX_ENTRIES: usize = 1_024;
/// Maximum bytes that are put back into a ring.
const REFILL_MAX_BYTES: usize = 1024 * 1024;

/// Refills rings, one after the other.
pub struct Refiller {
    broker: Broker,
    hub: Arc<Hub>,
}

impl Refiller {
    /// Creates a refiller for the rings of a hub.
    pub fn new(broker: Broker, hub: Arc<Hub>) -> Self {
        Self { broker, hub }
    }

    /// Refills the rings that are due, until the stop.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let refilling = async {
            loop {
                match self.hub.next_refill() {
                    Some(refill) => {
                        let frames = self.read(&refill).await.unwrap_or_else(|error| {
                            tracing::debug!(%error, "missed entries cannot be read; readers read history");
                            None
                        });
                        self.hub.refilled(&refill, frames);
                    }
                    None => self.hub.refill_notify().notified().await,
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = refilling => anyhow::bail!("the loop that refills rings ended"),
        }
    }

    /// Reads the range; `None` where it is incomplete or too large.
    async fn read(&self, refill: &Refill) -> Result<Option<Vec<Arc<Frame>>>, BrokerError> {
        let audiences = [refill.audience.clone()];
        let mut at = Cursor { epoch: refill.epoch.to_string(), position: refill.after };
        let (mut frames, mut entries, mut bytes) = (Vec::new(), 0, 0);
        loop {
            metrics::history_read();
            let history = self.broker.history(&audiences, &at, usize::MAX).await?;
            let is_whole = history.gaps.is_empty() && history.reached.epoch == *refill.epoch;
            for recalled in history.entries.iter().filter(|one| one.stored.position <= refill.to) {
                (entries, bytes) = (entries + 1, bytes + recalled.stored.raw.len());
                let frame = Frame::encode(&refill.epoch, &recalled.claimed_by, &recalled.stored);
                frames.extend(frame.map(Arc::new));
            }
            if !is_whole || entries > REFILL_MAX_ENTRIES || bytes > REFILL_MAX_BYTES {
                return Ok(None);
            }
            if history.ended || history.reached.position >= refill.to {
                return Ok(Some(frames));
            }
            at = history.reached;
        }
    }
}
