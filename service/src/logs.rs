use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged when nobody says otherwise.
const DEFAULT_FILTER: &str = "info";

/// Logs to stderr, filtered by `LOG`, else `RUST_LOG`, else `info`. Colours only on a terminal. A
/// filter that cannot be read is reported and taken for the default; a second call does nothing.
pub fn init_logs() {
    init_logs_at(DEFAULT_FILTER);
}

/// [`init_logs`] for a program that speaks to a person: `default` stands in for `info`.
pub fn init_logs_at(default: &str) {
    let (filter, fault) = filter(variable("LOG").or_else(|| variable("RUST_LOG")).as_deref(), default);
    let installed = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
    if let (Ok(()), Some(fault)) = (installed, fault) {
        tracing::warn!("{fault}");
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the crate that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn filter(text: Option<&str>, default: &str) -> (EnvFilter, Option<String>) {
    let text = text.unwrap_or(default);
    match EnvFilter::try_new(text) {
        Ok(filter) => (filter, None),
        Err(error) => (
            EnvFilter::new(default),
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
        assert_eq!((default.to_string().as_str(), fault), ("warn", None));
        assert_eq!(filter(Some("warn,x=debug"), DEFAULT_FILTER).1, None);
        let (default, fault) = filter(Some("x=loud"), DEFAULT_FILTER);
        assert_eq!(default.to_string(), "info");
        assert!(fault.expect("a fault").contains("'x=loud'"));
    }

    #[test]
    fn a_second_call_does_nothing() {
        init_logs();
        init_logs();
    }
}
