use std::time::Duration;

use anyhow::Context;
use carillon_broker::Broker;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::entry::generated;
use crate::push::push;

/// A generated notification is not owed to anyone: after the stop, only the attempt in flight is finished.
const GRACE: Duration = Duration::ZERO;

/// Generates a notification at every interval and pushes it, until `stop` or until `config.count` are pushed. While Redis
/// does not answer it retries the current one, and generates no others.
///
/// # Errors
/// When a notification cannot be serialized, which never happens.
pub async fn run(broker: &Broker, config: &Config, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pushed = 0;
    tracing::info!(interval_ms = config.interval.as_millis(), count = config.count, to = %config.to, "producing");
    while config.count.is_none_or(|count| pushed < count) {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let notification = generated(pushed + 1, &config.to);
        let entry = serde_json::to_vec(&notification).context("cannot serialize a notification")?;
        if let Err(error) = push(broker, &[entry], stop, GRACE).await {
            tracing::warn!(%error, notification.id, "stopped with a notification that was not pushed");
            break;
        }
        pushed += 1;
        tracing::info!(number = pushed, notification.id, notification.title, "pushed");
    }
    tracing::info!(pushed, "done");
    Ok(())
}
