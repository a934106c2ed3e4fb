use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::stderr::{flush, report};

/// A process that has not ended this long after the stop is ended by force.
const ENDED_AFTER: Duration = Duration::from_secs(13);
/// The exit code of such a process.
const STUCK: i32 = 1;

/// Returns a token that the first SIGTERM or SIGINT cancels. A second signal ends the process at once, with the exit code
/// that shells use for it: 143 or 130. 13 seconds after the token is cancelled, by any code, the process ends in any case.
/// Call it once; the signals are caught from its return on.
///
/// A separate thread watches, so that the process can be ended even if the runtime is stuck.
///
/// # Panics
/// When the system refuses the handlers or the thread.
#[must_use]
pub fn stop_on_signals() -> CancellationToken {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime for signals can be started");
    let (terminate, interrupt) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate()).expect("SIGTERM can be handled"),
            signal(SignalKind::interrupt()).expect("SIGINT can be handled"),
        )
    };
    let stop = CancellationToken::new();
    let watched = stop.clone();
    let watch = move || runtime.block_on(watch(terminate, interrupt, watched));
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).expect("a thread can be started");
    stop
}

/// Each step acts first and logs afterwards.
async fn watch(mut terminate: Signal, mut interrupt: Signal, stop: CancellationToken) {
    let mut signals = 0;
    let mut ended_at = None;
    loop {
        tokio::select! {
            (name, code) = next(&mut terminate, &mut interrupt) => {
                signals += 1;
                if signals > 1 {
                    exit(code, &format!("a second signal ({name}): ending at once"));
                }
                stop.cancel();
                tracing::info!(signal = name, "stopping; a second signal ends the process at once");
            }
            () = stop.cancelled(), if ended_at.is_none() => ended_at = Some(Instant::now() + ENDED_AFTER),
            () = sleep_until(ended_at.unwrap_or_else(Instant::now)), if ended_at.is_some() => {
                exit(STUCK, &format!("still running {ENDED_AFTER:?} after the stop: ending at once"));
            }
        }
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", 143),
        _ = interrupt.recv() => ("SIGINT", 130),
    }
}

fn exit(code: i32, words: &str) -> ! {
    report(words);
    flush();
    std::process::exit(code)
}
