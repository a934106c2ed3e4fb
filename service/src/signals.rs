use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A token that the first SIGTERM or SIGINT cancels. A second one ends the process at once, with the
/// code that a shell gives to such a death: 143 or 130. Call it once, inside the runtime; the signals
/// are caught from its return on.
///
/// # Panics
/// Outside a tokio runtime, or when the system refuses the handlers.
#[must_use]
pub fn stop_on_signals() -> CancellationToken {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
    let stop = CancellationToken::new();
    let first = stop.clone();
    // Nobody waits for this task: it watches for as long as the process lives.
    TaskTracker::new().spawn(async move {
        let (name, _) = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "stopping; a second signal ends the process at once");
        first.cancel();
        let (name, code) = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = name, "a second signal: ending at once");
        std::process::exit(code);
    });
    stop
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", 143),
        _ = interrupt.recv() => ("SIGINT", 130),
    }
}
