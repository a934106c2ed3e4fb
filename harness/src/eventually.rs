use std::time::Duration;

use tokio::time::Instant;

/// The wait before a condition is evaluated again.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds. The deadline only ends a failed test: make it generous.
///
/// # Panics
/// At the deadline, with `what` in the message.
pub async fn eventually(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
