use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;

use crate::stderr::{Stderr, report};

/// The default filter.
const DEFAULT_FILTER: &str = "info";

/// Libraries that log their payloads, with tokens in them, at TRACE or DEBUG.
const SECRETIVE: [&str; 4] = ["tungstenite", "tokio_tungstenite", "hyper", "hyper_util"];

/// Logs to stderr, filtered by `LOG`, else `RUST_LOG`, else `info`. Colours only on a terminal. An unreadable filter is
/// reported and replaced by the default; a second call does nothing. Logging never waits for stderr: see [`report`].
pub fn init_logs() {
    init_logs_at(DEFAULT_FILTER);
}

/// Like [`init_logs`] for a program that a person runs: `default` replaces `info`.
pub fn init_logs_at(default: &str) {
    let (filter, fault) = filter(variable("LOG").or_else(|| variable("RUST_LOG")).as_deref(), default);
    let installed = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        // `eprintln!` would write it, which panics when stderr is broken.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    if installed.is_ok() {
        // The hook of the standard library waits until stderr accepts its output.
        std::panic::set_hook(Box::new(|panic| report(&panic_words(panic))));
    }
    if let (Ok(()), Some(fault)) = (installed, fault) {
        tracing::warn!("{fault}");
    }
}

fn panic_words(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name").to_owned();
    let words = panic.payload_as_str().unwrap_or("without a message");
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    format!("thread '{thread}' panicked{place}: {words}{backtrace}")
}

#[expect(clippy::disallowed_methods, reason = "this is the crate that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Returns a filter in which these libraries do not log their details, whatever the text requests.
fn without_secrets(text: &str) -> String {
    let requested = text.split(',').filter(|word| !SECRETIVE.iter().any(|target| word.contains(target)));
    let pinned = SECRETIVE.iter().map(|target| format!("{target}=warn"));
    requested.map(str::to_owned).chain(pinned).collect::<Vec<_>>().join(",")
}

fn filter(text: Option<&str>, default: &str) -> (EnvFilter, Option<String>) {
    let text = text.unwrap_or(default);
    match EnvFilter::try_new(without_secrets(text)) {
        Ok(filter) => (filter, None),
        Err(error) => (
            EnvFilter::new(without_secrets(default)),
            Some(format!(
                "the log filter '{text}' cannot be read ({error}): write it like info or carillon_bff=debug"
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_reported_and_not_fatal() {
        let (default, fault) = filter(None, "warn");
        assert!(default.to_string().contains("warn") && fault.is_none(), "{default}");
        assert_eq!(filter(Some("warn,x=debug"), DEFAULT_FILTER).1, None);
        let (default, fault) = filter(Some("x=loud"), DEFAULT_FILTER);
        assert!(default.to_string().ends_with("info"), "{default}");
        assert!(fault.expect("a fault").contains("'x=loud'"));
    }

    #[test]
    fn libraries_that_log_secrets_are_not_logged_in_detail() {
        let filter = without_secrets("trace,tungstenite::protocol=trace,carillon_bff=debug");
        assert_eq!(
            filter,
            "trace,carillon_bff=debug,tungstenite=warn,tokio_tungstenite=warn,hyper=warn,hyper_util=warn"
        );
    }

    #[test]
    fn a_second_call_does_nothing() {
        init_logs();
        init_logs();
    }
}
