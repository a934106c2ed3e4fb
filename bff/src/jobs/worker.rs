//! Runs the jobs of the queue, as one of several workers: each job is held under a lease, and the job of a worker that falls
//! silent goes to another. The work is that of the demo: steps that take time.

use std::sync::Arc;
use std::time::Duration;

use carillon_broker::{Broker, Job, Lease};
use carillon_protocol::Backoff;
use carillon_service::Tasks;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::jobs::http::Input;
use crate::metrics;

/// Maximum jobs that one replica runs at the same time.
const JOBS_AT_ONCE: usize = 4;
/// The interval of polls of the queue when no wake-up arrives.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How long a step of a job takes. The lease is many times longer.
const STEP: Duration = Duration::from_millis(500);
/// The longest pause after Redis did not answer.
const RETRY_CAP_MS: u64 = 1_000;
/// How often the end of an attempt is sent to Redis without an answer; then the lease expires.
const END_MAX_TRIES: u32 = 10;

/// Starts the workers of a replica. `wake` is notified when a job was put into the queue here.
pub(crate) fn spawn(tasks: &Tasks, broker: &Broker, replica: &Arc<str>, wake: &Arc<Notify>) {
    for _ in 0..JOBS_AT_ONCE {
        let (broker, replica, wake) = (broker.clone(), Arc::clone(replica), Arc::clone(wake));
        tasks.spawn("worker", Worker { broker, replica, wake }.run(tasks.stop().clone()));
    }
}

struct Worker {
    broker: Broker,
    replica: Arc<str>,
    wake: Arc<Notify>,
}

/// How an attempt ended, with the result or the reason as JSON.
enum End {
    Done(String),
    Failed(String),
    /// The worker is stopped, so another one may take the job.
    Released,
    /// Another worker has the job.
    Lost,
}

impl Worker {
    /// Runs one job after the other. At the stop it releases the current job.
    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            let pause = match self.broker.take_job(&self.replica).await {
                Ok(taken) => {
                    backoff.reset();
                    metrics::jobs_given_up(taken.given_up);
                    match taken.job {
                        Some(job) => {
                            metrics::job_taken();
                            let end = self.work(&job, &stop).await;
                            self.report_end(&job, end, &stop).await;
                            Duration::ZERO
                        }
                        None => POLL_EVERY,
                    }
                }
                Err(error) => {
                    let wait_ms = backoff.next_ms(fastrand::f64());
                    if backoff.attempt() == 1 {
                        tracing::warn!(retry.ms = wait_ms, %error, "cannot take jobs");
                    }
                    Duration::from_millis(wait_ms)
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.wake.notified(), if !pause.is_zero() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Runs a job step by step, and reports its progress after each.
    async fn work(&self, job: &Job, stop: &CancellationToken) -> End {
        let Ok(Input { steps }) = serde_json::from_str(&job.new.input) else {
            return End::Failed(r#""this worker runs jobs with steps""#.to_owned());
        };
        for step in 1..=steps {
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Released,
                () = tokio::time::sleep(STEP) => {}
            }
            // The end reports the last step.
            if step < steps {
                let progress = u8::try_from(u64::from(step) * 100 / u64::from(steps)).unwrap_or(100);
                match self.broker.report_job(&job.handle, job.attempt, progress).await {
                    Ok(Lease::Held) => {}
                    Ok(Lease::Lost) => return End::Lost,
                    // The next report renews the lease as well, and is newer.
                    Err(error) => {
                        tracing::warn!(job.id = job.handle, %error, "cannot report the progress of a job")
                    }
                }
            }
        }
        End::Done(serde_json::json!({ "steps": steps, "worker": &*self.replica }).to_string())
    }

    /// Reports how an attempt ended, and retries while no answer comes: repeats are harmless.
    async fn report_end(&self, job: &Job, end: End, stop: &CancellationToken) {
        let (id, attempt) = (&job.handle, job.attempt);
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            let (how, reported) = match &end {
                End::Done(result) => ("done", self.broker.finish_job(id, attempt, result).await),
                End::Failed(reason) => ("failed", self.broker.fail_job(id, attempt, reason).await),
                End::Released => ("released", self.broker.release_job(id, attempt).await),
                End::Lost => ("lost", Ok(Lease::Lost)),
            };
            match reported {
                Ok(Lease::Held) => return metrics::job_ended(how),
                Ok(Lease::Lost) => return metrics::job_ended("lost"),
                Err(error) if stop.is_cancelled() || backoff.attempt() + 1 >= END_MAX_TRIES => {
                    tracing::warn!(job.id = id, %error, "cannot report how a job ended; another worker will start it again");
                    return metrics::job_ended("unsaid");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(backoff.next_ms(fastrand::f64()))).await,
            }
        }
    }
}
