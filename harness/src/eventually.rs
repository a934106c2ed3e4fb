use std::time::Duration;

use tokio::time::Instant;

/// How long to wait before a condition is asked again.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds. The deadline only ends a test that has failed: make it generous.
///
/// # Panics
/// At the deadline, naming `what` did not come about.
pub async fn eventually(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}
