use std::pin::pin;
use std::time::Duration;

use carillon_broker::{Broker, BrokerError};
use carillon_protocol::Backoff;
use tokio_util::sync::CancellationToken;

/// The longest first pause after a failed push.
const PAUSE_BASE_MS: u64 = 200;
/// The longest pause, so that the recovery of Redis is noticed soon.
const PAUSE_CAP_MS: u64 = 2_000;

/// Pushes entries until Redis accepts them. After `stop`, the attempt in flight is finished (the broker bounds it), and
/// others follow for no longer than `grace`.
///
/// # Errors
/// The error of the last attempt, when the grace is over. Redis may still have accepted the entries.
pub(crate) async fn push(
    broker: &Broker,
    entries: &[Vec<u8>],
    stop: &CancellationToken,
    grace: Duration,
) -> Result<(), BrokerError> {
    let mut backoff = Backoff::new(PAUSE_BASE_MS, PAUSE_CAP_MS);
    let mut over = pin!(async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    });
    loop {
        let error = match broker.push(entries).await {
            Ok(waiting) => {
                if backoff.attempt() > 0 {
                    tracing::info!(entries = entries.len(), waiting, "Redis accepts entries again");
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let pause_ms = backoff.next_ms(fastrand::f64());
        tracing::warn!(%error, attempt = backoff.attempt(), retry_in_ms = pause_ms, "not pushed yet");
        tokio::select! {
            biased;
            () = &mut over => return Err(error),
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
        }
    }
}
