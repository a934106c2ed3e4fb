use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::stderr::{flush, report};

/// Runs a program's main future on a multi-threaded runtime. An error becomes one line on stderr, `program: cause: cause`,
/// and exit code 1. Tasks that still run when `main` returns are abandoned, so that a blocked read of stdin cannot keep the
/// process alive.
pub fn run(main: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.context("cannot start the async runtime").and_then(|runtime| {
        let result = runtime.block_on(Box::pin(main));
        runtime.shutdown_background();
        result
    });
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&one_line(&program(), &error));
            ExitCode::FAILURE
        }
    };
    flush();
    code
}

fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    Path::new(&path).file_name().unwrap_or(&path).to_string_lossy().into_owned()
}

fn one_line(program: &str, error: &anyhow::Error) -> String {
    let words = format!("{program}: {error:#}");
    words.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let error = anyhow::anyhow!("refused\n  by Redis").context("cannot push");
        assert_eq!(one_line("producer", &error), "producer: cannot push: refused by Redis");
    }

    #[test]
    fn the_exit_code_reports_success_or_failure() {
        let code = |result| format!("{:?}", run(async { result }));
        assert_eq!(code(Ok(())), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(Err(anyhow::anyhow!("on purpose"))), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn a_blocked_thread_does_not_hold_the_end() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        run(async move {
            tokio::task::spawn_blocking(move || held.recv());
            Ok(())
        });
        drop(hold);
    }
}
