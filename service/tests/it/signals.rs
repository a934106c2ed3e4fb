//! Signals need a separate process: each test runs this binary again, for [`child`] alone.

use std::process::{Command, Output};
use std::time::Duration;

use carillon_service::stop_on_signals;

/// The signals that the child sends itself, in order; the parent sets it.
const SIGNALS: &str = "CARILLON_TEST_SIGNALS";
/// The child gives up after this, with success, which no parent expects.
const GIVE_UP: Duration = Duration::from_secs(30);

fn run_child(signals: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "signals::child", "--nocapture"])
        .env(SIGNALS, signals)
        .output()
        .unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how the parent speaks to its child")]
fn child() {
    let Ok(signals) = std::env::var(SIGNALS) else { return };
    let (first, second) = signals.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stop = stop_on_signals();
        match first {
            "none" => stop.cancel(),
            signal => raise(signal),
        }
        tokio::time::timeout(GIVE_UP, stop.cancelled()).await.unwrap();
        println!("the token is cancelled");
        match second {
            "none" => std::process::exit(7),
            // The only thread of the runtime.
            "stuck" => std::thread::sleep(GIVE_UP),
            signal => raise(signal),
        }
        tokio::time::sleep(GIVE_UP).await;
    });
}

fn raise(signal: &str) {
    let kill = format!("kill -{signal} {}", std::process::id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

fn check(cases: &[(&str, i32)]) {
    for &(signals, code) in cases {
        let output = run_child(signals);
        assert!(String::from_utf8_lossy(&output.stdout).contains("the token is cancelled"), "{signals}");
        assert_eq!(output.status.code(), Some(code), "{signals}");
    }
}

#[test]
fn the_first_signal_cancels_and_the_second_ends_at_once() {
    check(&[("TERM none", 7), ("INT none", 7), ("TERM TERM", 143), ("TERM INT", 130)]);
}

#[test]
fn a_process_with_a_stuck_runtime_ends_after_a_signal() {
    check(&[("TERM stuck", 1)]);
}

#[test]
fn a_process_with_a_stuck_runtime_ends_after_a_loop_died() {
    check(&[("none stuck", 1)]);
}
