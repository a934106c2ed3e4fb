//! Jobs that a reader starts and a worker does in the background. Each is done at least once: a worker holds a job under a
//! lease, and a job whose worker falls silent goes to another one. Every change of a job is a notification, pushed in the
//! same atomic step.

use std::collections::HashMap;
use std::sync::LazyLock;

use carillon_protocol::limits::{JOB_ID_MAX_BYTES, JOB_NAME_MAX_CHARS};
use carillon_protocol::{Audience, JobStatus, check_json};
use redis::{FromRedisValue, Script};

use crate::limits::{
    JOB_ATTEMPTS_MAX, JOB_INPUT_MAX_BYTES, JOB_KEEP_MS, JOB_LEASE_MS, JOB_LOOKS_MAX, JOB_PAUSE_MS,
    JOB_RESULT_MAX_BYTES, JOBS_ANONYMOUS_MAX, JOBS_LISTED_MAX, JOBS_MAX, JOBS_OWNER_MAX,
};
use crate::{Broker, BrokerError};

/// A job to put into the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Names the job among those of its owner. 1 to [`JOB_ID_MAX_BYTES`] bytes.
    pub id: String,
    /// The session or user that may read it.
    pub owner: Audience,
    /// The audience of the notifications about it.
    pub to: Audience,
    /// The title of those notifications. 1 to [`JOB_NAME_MAX_CHARS`] characters.
    pub name: String,
    /// The input of the worker, as JSON of at most [`JOB_INPUT_MAX_BYTES`].
    pub input: String,
}

impl NewJob {
    /// The name that workers use for it: see [`job_handle`].
    pub fn handle(&self) -> String {
        job_handle(&self.owner, &self.id)
    }

    /// Checks the limits of the queue. The HTTP endpoint checks the same limits, with an answer for each.
    fn check(&self) -> Result<(), EnqueueError> {
        let fault = if self.id.is_empty() || self.id.len() > JOB_ID_MAX_BYTES {
            format!("an id has 1 to {JOB_ID_MAX_BYTES} bytes")
        } else if self.name.is_empty() || self.name.chars().count() > JOB_NAME_MAX_CHARS {
            format!("a name has 1 to {JOB_NAME_MAX_CHARS} characters")
        } else if self.input.len() > JOB_INPUT_MAX_BYTES {
            format!("an input has at most {JOB_INPUT_MAX_BYTES} bytes")
        } else {
            return Ok(());
        };
        Err(EnqueueError::Invalid(fault))
    }
}

/// The handle of a job, by which workers name it. Two owners may use the same id, so the handle names the owner too.
pub fn job_handle(owner: &Audience, id: &str) -> String {
    // A name may hold any byte, so its length precedes it.
    let owner = owner.to_string();
    format!("{}:{owner}{id}", owner.len())
}

/// A job in the queue, or one that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The name that workers use for it: see [`NewJob::handle`].
    pub handle: String,
    /// The job as it was enqueued.
    pub new: NewJob,
    /// How far it is.
    pub status: JobStatus,
    /// Progress of the present attempt, in per cent.
    pub progress: u8,
    /// The result as JSON, or the reason why the last attempt failed.
    pub result: Option<String>,
    /// How often it was taken. Names the lease, together with the handle.
    pub attempt: u32,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// When it last changed, in milliseconds since 1970.
    pub updated_ms: u64,
}

/// The answer to a worker that wants a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The job that has been due longest, now under a lease of [`JOB_LEASE_MS`].
    pub job: Option<Job>,
    /// Jobs that this call gave up, since [`JOB_ATTEMPTS_MAX`] workers fell silent over them.
    pub given_up: u64,
}

/// Whether an attempt still holds its lease. What it reports without a lease has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// The attempt holds the lease.
    Held,
    /// Another worker has the job, or the job has ended: stop working on it.
    Lost,
}

impl Lease {
    pub(crate) fn from_flag(held: bool) -> Self {
        if held { Self::Held } else { Self::Lost }
    }
}

/// Why a job was not enqueued.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EnqueueError {
    /// The owner has as many jobs that wait or run as allowed.
    #[error("{JOBS_OWNER_MAX} jobs of this owner wait or run already")]
    OwnerFull,
    /// Owners who are not signed in have as many jobs that wait or run as allowed, all together.
    #[error("{JOBS_ANONYMOUS_MAX} jobs of owners who are not signed in wait or run already")]
    AnonymousFull,
    /// As many jobs wait or run as allowed.
    #[error("{JOBS_MAX} jobs wait or run already")]
    Full,
    /// The job breaks a limit.
    #[error("{0}")]
    Invalid(String),
    /// An error of Redis.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("jobs/jobs.lua")));

impl Broker {
    /// Puts a job into the queue, and returns it. A job that is there already is returned as it stands, so that repeating it
    /// is harmless.
    ///
    /// # Errors
    /// [`EnqueueError::Full`] at [`JOBS_MAX`], [`EnqueueError::OwnerFull`] at [`JOBS_OWNER_MAX`],
    /// [`EnqueueError::AnonymousFull`] at [`JOBS_ANONYMOUS_MAX`].
    pub async fn enqueue_job(&self, job: &NewJob) -> Result<Job, EnqueueError> {
        job.check()?;
        let to = serde_json::json!(job.to).to_string();
        let (handle, owner) = (job.handle(), job.owner.to_string());
        let most =
            [JOBS_MAX, JOBS_LISTED_MAX, JOBS_OWNER_MAX, JOBS_ANONYMOUS_MAX].map(|most| most.to_string());
        let texts = [&handle, &job.id, &owner, &to, &job.name, &job.input];
        let args: Vec<_> = texts.into_iter().chain(&most).map(String::as_str).collect();
        let (outcome, fields): (String, Fields) = self.job_verb("enqueue", &args).await?;
        match outcome.as_str() {
            "owner_full" => Err(EnqueueError::OwnerFull),
            "anonymous_full" => Err(EnqueueError::AnonymousFull),
            "full" => Err(EnqueueError::Full),
            _ => Ok(read(fields)?),
        }
    }

    /// Takes the job that has been due longest: a new one, one whose worker has been silent for the lease, or one that
    /// failed and has paused. One that was taken while the answer was lost is due again after the lease.
    pub async fn take_job(&self, worker: &str) -> Result<Taken, BrokerError> {
        let args = [JOB_LEASE_MS, JOB_ATTEMPTS_MAX.into(), JOB_LOOKS_MAX].map(|number| number.to_string());
        let args: Vec<_> = [worker].into_iter().chain(args.iter().map(String::as_str)).collect();
        let (given_up, fields): (u64, Fields) = self.job_verb("take", &args).await?;
        let job = if fields.is_empty() { None } else { Some(read(fields)?) };
        Ok(Taken { job, given_up })
    }

    /// Reports the progress of an attempt, in per cent, and renews its lease. Progress never falls. Repeating it is
    /// harmless.
    pub async fn report_job(&self, handle: &str, attempt: u32, progress: u8) -> Result<Lease, BrokerError> {
        let args = [attempt.to_string(), progress.min(100).to_string(), JOB_LEASE_MS.to_string()];
        let held = self.job_verb("report", &[handle, &args[0], &args[1], &args[2]]).await?;
        Ok(Lease::from_flag(held))
    }

    /// Ends a job with its result, as JSON of at most [`JOB_RESULT_MAX_BYTES`]. Repeating it is harmless.
    ///
    /// # Errors
    /// [`BrokerError::Refused`] for a result that breaks a limit.
    pub async fn finish_job(&self, handle: &str, attempt: u32, result: &str) -> Result<Lease, BrokerError> {
        check_result(result)?;
        let args = [attempt.to_string(), JOB_RESULT_MAX_BYTES.to_string()];
        let held = self.job_verb("done", &[handle, &args[0], result, &args[1]]).await?;
        Ok(Lease::from_flag(held))
    }

    /// Ends an attempt with the reason why it failed, as JSON. The job is due again after a pause, which doubles; the last
    /// of [`JOB_ATTEMPTS_MAX`] attempts ends the job.
    ///
    /// # Errors
    /// As for [`Broker::finish_job`].
    pub async fn fail_job(&self, handle: &str, attempt: u32, reason: &str) -> Result<Lease, BrokerError> {
        check_result(reason)?;
        let numbers = [JOB_RESULT_MAX_BYTES as u64, JOB_ATTEMPTS_MAX.into(), pause_ms(attempt)];
        let (attempt, numbers) = (attempt.to_string(), numbers.map(|number| number.to_string()));
        let args = [handle, &attempt, reason, &numbers[0], &numbers[1], &numbers[2]];
        Ok(Lease::from_flag(self.job_verb("fail", &args).await?))
    }

    /// Gives a job back, as a worker does that is stopped: the job is due at once, and the attempt does not count as one
    /// that failed. Repeating it is harmless.
    pub async fn release_job(&self, handle: &str, attempt: u32) -> Result<Lease, BrokerError> {
        Ok(Lease::from_flag(self.job_verb("release", &[handle, &attempt.to_string()]).await?))
    }

    /// Returns an owner's job as it stands; `None` where there is none, or it last changed more than [`JOB_KEEP_MS`] ago.
    pub async fn job(&self, owner: &Audience, id: &str) -> Result<Option<Job>, BrokerError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.0.names().job(&job_handle(owner, id)));
        let fields: Fields = self.0.read(&command).await?;
        if fields.is_empty() { Ok(None) } else { read(fields).map(Some) }
    }

    /// Returns an owner's jobs, newest first, at most [`JOBS_LISTED_MAX`].
    pub async fn jobs_of(&self, owner: &Audience) -> Result<Vec<Job>, BrokerError> {
        let jobs: Vec<Fields> = self.job_verb("list", &[&owner.to_string()]).await?;
        jobs.into_iter().map(read).collect()
    }

    /// Runs a verb of jobs.lua.
    async fn job_verb<T: FromRedisValue>(&self, verb: &str, args: &[&str]) -> Result<T, BrokerError> {
        let names = self.0.names();
        let mut call = SCRIPT.key(names.jobs());
        call.key(names.list()).arg(verb).arg(names.channel()).arg(JOB_KEEP_MS).arg(args);
        self.0.eval(&call).await
    }
}

/// Checks that a result is JSON of a bounded length; otherwise nobody could read the notification with it.
fn check_result(json: &str) -> Result<(), BrokerError> {
    if json.len() > JOB_RESULT_MAX_BYTES {
        let found = json.len();
        return Err(BrokerError::Refused(format!(
            "a job's result has at most {JOB_RESULT_MAX_BYTES} bytes, this has {found}"
        )));
    }
    // By itself, and where the notification holds it: three levels down.
    check_json(json)
        .and_then(|()| check_json(&format!("[[[{json}]]]")))
        .map_err(|error| BrokerError::Refused(format!("a job's result is JSON: {error}")))
}

/// The pause after a failed attempt.
fn pause_ms(attempt: u32) -> u64 {
    JOB_PAUSE_MS << attempt.saturating_sub(1).min(8)
}

/// The fields of a job's hash.
type Fields = HashMap<String, String>;

fn read(fields: Fields) -> Result<Job, BrokerError> {
    job_from(&fields).ok_or_else(|| {
        BrokerError::Refused("the hash of a job holds something that we did not write".to_owned())
    })
}

fn job_from(fields: &Fields) -> Option<Job> {
    let new = NewJob {
        // Those that an earlier release queued have one id for both.
        id: fields.get("own_id").or_else(|| fields.get("id"))?.clone(),
        owner: fields.get("owner")?.parse().ok()?,
        to: serde_json::from_str(fields.get("to")?).ok()?,
        name: fields.get("name")?.clone(),
        input: fields.get("input")?.clone(),
    };
    Some(Job {
        handle: fields.get("id")?.clone(),
        new,
        status: fields.get("status")?.parse().ok()?,
        progress: fields.get("progress")?.parse().ok()?,
        result: fields.get("result").cloned(),
        attempt: fields.get("attempt")?.parse().ok()?,
        created_ms: fields.get("created_at")?.parse().ok()?,
        updated_ms: fields.get("updated_at")?.parse().ok()?,
    })
}
