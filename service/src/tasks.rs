use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The background loops of a process. Each must run until the stop is requested; the first that ends before stops the
/// others, so that no process lives on with a dead loop and green probes.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<&'static str>,
    failure: Option<String>,
}

/// How a loop ended.
enum End {
    Quiet,
    Failed(String),
    Panicked(String),
}

impl Tasks {
    /// Creates a set of loops that stop with `stop`; a loop that ends too soon cancels it.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, ..Self::default() }
    }

    /// The token that ends every loop.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a loop. It must end soon after [`Tasks::stop`] is cancelled, and not before.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(
        &self,
        name: &'static str,
        future: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.state.lock().running.push(name);
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let end = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(Ok(())) => End::Quiet,
                Ok(Err(error)) => End::Failed(format!("{error:#}")),
                Err(panic) => End::Panicked(panic_text(panic.as_ref())),
            };
            tasks.ended(name, end);
        });
    }

    /// Waits until the stop is requested, and then at most `deadline` for every loop to end.
    ///
    /// # Errors
    /// Names the loop that ended too soon or panicked, or else those that missed the deadline.
    pub async fn join(&self, deadline: Duration) -> anyhow::Result<()> {
        self.stop.cancelled().await;
        self.tracker.close();
        let all_ended = tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok();
        let state = self.state.lock();
        if let Some(failure) = &state.failure {
            bail!("{failure}");
        }
        if !all_ended {
            bail!("still running {deadline:?} after the stop: {}", state.running.join(", "));
        }
        Ok(())
    }

    fn ended(&self, name: &'static str, end: End) {
        let too_soon = !self.stop.is_cancelled();
        let mut state = self.state.lock();
        if let Some(at) = state.running.iter().position(|running| *running == name) {
            state.running.remove(at);
        }
        let failure = match end {
            End::Quiet if too_soon => format!("the {name} loop ended, which it never should"),
            End::Quiet => return,
            End::Failed(error) if too_soon => format!("the {name} loop failed: {error}"),
            End::Failed(error) => {
                tracing::warn!(task = name, error, "a loop failed");
                return;
            }
            End::Panicked(text) => format!("the {name} loop panicked: {text}"),
        };
        state.failure.get_or_insert_with(|| failure.clone());
        drop(state);
        // This comes before the log, so that the end of the process depends on nothing else.
        self.stop.cancel();
        tracing::error!(task = name, "{failure}");
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Runs a well-behaved loop and `other`; returns the error of `join`.
    async fn with(other: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> String {
        let tasks = Tasks::default();
        let stop = tasks.stop().clone();
        tasks.spawn("good", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.spawn("other", other);
        format!("{:#}", tasks.join(DEADLINE).await.expect_err("a failure"))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_loop_to_end_ends_the_process() {
        assert_eq!(with(async { Ok(()) }).await, "the other loop ended, which it never should");
        let failed = async { Err(anyhow::anyhow!("refused").context("no Redis")) };
        assert_eq!(with(failed).await, "the other loop failed: no Redis: refused");
        assert_eq!(with(async { panic!("on purpose") }).await, "the other loop panicked: on purpose");
    }

    #[tokio::test(start_paused = true)]
    async fn loops_that_end_at_the_stop_are_fine() {
        let tasks = Tasks::default();
        for name in ["one", "two"] {
            let stop = tasks.stop().clone();
            tasks.spawn(name, async move {
                stop.cancelled().await;
                tokio::time::sleep(DEADLINE / 2).await;
                Ok(())
            });
        }
        tasks.stop().cancel();
        tasks.join(DEADLINE).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_after_the_stop_is_no_failure_but_a_panic_is() {
        let tasks = Tasks::default();
        tasks.stop().cancel();
        tasks.spawn("late", async { anyhow::bail!("cut while it drained") });
        tasks.join(DEADLINE).await.unwrap();
        let tasks = Tasks::default();
        tasks.stop().cancel();
        tasks.spawn("late", async { panic!("on purpose") });
        assert!(tasks.join(DEADLINE).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn loops_that_miss_the_deadline_are_named() {
        let tasks = Tasks::default();
        tasks.spawn("stuck", std::future::pending());
        let stop = tasks.stop().clone();
        tasks.spawn("good", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.stop().cancel();
        let error = tasks.join(DEADLINE).await.expect_err("stuck").to_string();
        assert_eq!(error, "still running 10s after the stop: stuck");
    }
}
