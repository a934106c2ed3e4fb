//! Jobs that a reader starts and a worker does in the background. Each is done at least once: a worker holds
//! a job under a lease, and a job whose worker falls silent goes to the next. Every change of a job is a
//! notification, pushed in the same atomic step.

use std::collections::HashMap;
use std::sync::LazyLock;

use carillon_protocol::{Audience, JobStatus, check_json};
use redis::Script;

use crate::engine::Engine;
use crate::limits::{
    JOB_ATTEMPTS_MAX, JOB_ID_MAX_BYTES, JOB_INPUT_MAX_BYTES, JOB_KEEP_MS, JOB_LEASE_MS, JOB_LOOKS_MAX,
    JOB_NAME_MAX_CHARS, JOB_PAUSE_MS, JOB_RESULT_MAX_BYTES, JOBS_ANONYMOUS_MAX, JOBS_LISTED_MAX, JOBS_MAX,
    JOBS_OWNER_MAX,
};
use crate::{Broker, BrokerError};

/// A job that somebody wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Names the job among its owner's: enqueuing it again is harmless. 1 to [`JOB_ID_MAX_BYTES`] bytes.
    pub id: String,
    /// Who may see it.
    pub owner: Audience,
    /// Who is told how it stands.
    pub to: Audience,
    /// What people call it. 1 to [`JOB_NAME_MAX_CHARS`] characters.
    pub name: String,
    /// What the worker needs, as JSON of at most [`JOB_INPUT_MAX_BYTES`].
    pub input: String,
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What workers name it by: see [`NewJob::handle`].
    pub handle: String,
    /// As it was enqueued.
    pub new: NewJob,
    /// How far it is.
    pub status: JobStatus,
    /// Per cent of the present attempt.
    pub progress: u8,
    /// What came of it, as JSON: the result, or the reason why the last attempt failed.
    pub result: Option<String>,
    /// How often it was taken. Names the lease, together with its handle.
    pub attempt: u32,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// When it last changed, in milliseconds since 1970.
    pub updated_ms: u64,
}

/// What a worker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The job that has been due longest, now under a lease of [`JOB_LEASE_MS`].
    pub job: Option<Job>,
    /// Jobs that were given up on the way, since [`JOB_ATTEMPTS_MAX`] workers fell silent over them.
    pub given_up: u64,
}

/// Whether what a worker said had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The lease is this attempt's.
    Yes,
    /// Another worker has the job, or it is over: stop working on it.
    Lost,
}

impl Held {
    pub(crate) fn from_flag(held: bool) -> Self {
        if held { Self::Yes } else { Self::Lost }
    }
}

/// Why a job was not enqueued.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EnqueueError {
    /// As many of this owner's wait and run as there may be.
    #[error("{JOBS_OWNER_MAX} jobs of this owner wait or run already")]
    OwnerFull,
    /// As many of owners who are no users wait and run as there may be.
    #[error("{JOBS_ANONYMOUS_MAX} jobs of owners who are not signed in wait or run already")]
    AnonymousFull,
    /// As many wait and run as there may be.
    #[error("{JOBS_MAX} jobs wait or run already")]
    Full,
    /// The job breaks a limit.
    #[error("{0}")]
    Invalid(String),
    /// Redis.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// What workers name an owner's job by. The id is the owner's own, so the owner stands in it.
#[must_use]
pub fn job_handle(owner: &Audience, id: &str) -> String {
    // A name holds any byte, so its length goes before it.
    let owner = owner.to_string();
    format!("{}:{owner}{id}", owner.len())
}

impl NewJob {
    /// What workers name it by.
    #[must_use]
    pub fn handle(&self) -> String {
        job_handle(&self.owner, &self.id)
    }

    /// What the queue lets through. The edge checks the same with its own words.
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

/// A result must be JSON of a bounded length, or the report with it could not be read.
fn check_result(json: &str) -> Result<(), BrokerError> {
    if json.len() > JOB_RESULT_MAX_BYTES {
        let found = json.len();
        return Err(BrokerError::Refused(format!(
            "a job's result has at most {JOB_RESULT_MAX_BYTES} bytes, this has {found}"
        )));
    }
    // By itself, and where the report holds it: three levels down.
    check_json(json)
        .and_then(|()| check_json(&format!("[[[{json}]]]")))
        .map_err(|error| BrokerError::Refused(format!("a job's result is JSON: {error}")))
}

impl Broker {
    /// Puts a job into the queue. One that is there already is given as it stands.
    ///
    /// # Errors
    /// [`EnqueueError::Full`] at [`JOBS_MAX`], [`EnqueueError::OwnerFull`] at [`JOBS_OWNER_MAX`],
    /// [`EnqueueError::AnonymousFull`] at [`JOBS_ANONYMOUS_MAX`]; [`BrokerError::Away`] leaves open whether it was done,
    /// and doing it again is harmless.
    pub async fn enqueue_job(&self, job: &NewJob) -> Result<Job, EnqueueError> {
        job.check()?;
        self.0.enqueue_job(job).await
    }

    /// Takes the job that has been due longest: a new one, one whose worker has been silent for the lease, or
    /// one that failed and has paused.
    ///
    /// # Errors
    /// [`BrokerError::Away`] leaves open whether it was done; if it was, the job is due again after the lease.
    pub async fn take_job(&self, worker: &str) -> Result<Taken, BrokerError> {
        self.0.take_job(worker).await
    }

    /// Says how far an attempt is, in per cent, and renews its lease. Progress never falls.
    ///
    /// # Errors
    /// When Redis is away or refuses; saying it again is harmless.
    pub async fn report_job(&self, handle: &str, attempt: u32, progress: u8) -> Result<Held, BrokerError> {
        self.0.report_job(handle, attempt, progress.min(100)).await
    }

    /// Ends a job with its result, as JSON of at most [`JOB_RESULT_MAX_BYTES`].
    ///
    /// # Errors
    /// When the result breaks a limit, or Redis is away or refuses; saying it again is harmless.
    pub async fn finish_job(&self, handle: &str, attempt: u32, result: &str) -> Result<Held, BrokerError> {
        check_result(result)?;
        self.0.finish_job(handle, attempt, result).await
    }

    /// Ends an attempt with the reason why it failed, as JSON. The job is due again after a pause, which
    /// doubles; the last of [`JOB_ATTEMPTS_MAX`] attempts ends the job.
    ///
    /// # Errors
    /// As for [`Broker::finish_job`].
    pub async fn fail_job(&self, handle: &str, attempt: u32, reason: &str) -> Result<Held, BrokerError> {
        check_result(reason)?;
        self.0.fail_job(handle, attempt, reason).await
    }

    /// Gives a job back, as a worker does that is stopped: it is due at once, and the attempt does not count
    /// as one that failed.
    ///
    /// # Errors
    /// When Redis is away or refuses; saying it again is harmless.
    pub async fn release_job(&self, handle: &str, attempt: u32) -> Result<Held, BrokerError> {
        self.0.release_job(handle, attempt).await
    }

    /// An owner's job as it stands; `None` when there is none, or it last changed more than [`JOB_KEEP_MS`] ago.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn job(&self, owner: &Audience, id: &str) -> Result<Option<Job>, BrokerError> {
        self.0.job(&job_handle(owner, id)).await
    }

    /// An owner's jobs, newest first, at most [`JOBS_LISTED_MAX`].
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn jobs_of(&self, owner: &Audience) -> Result<Vec<Job>, BrokerError> {
        self.0.jobs_of(owner).await
    }
}

/// The pause after a failed attempt.
fn pause_ms(attempt: u32) -> u64 {
    JOB_PAUSE_MS << attempt.saturating_sub(1).min(8)
}

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("jobs/jobs.lua")));

type Fields = HashMap<String, String>;

impl Engine {
    async fn job_verb<T: redis::FromRedisValue>(&self, verb: &str, args: &[&str]) -> Result<T, BrokerError> {
        let names = self.names();
        let mut call = SCRIPT.key(names.jobs());
        call.key(names.list()).arg(verb).arg(names.channel()).arg(JOB_KEEP_MS).arg(args);
        self.eval(&call).await
    }

    async fn enqueue_job(&self, job: &NewJob) -> Result<Job, EnqueueError> {
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

    async fn take_job(&self, worker: &str) -> Result<Taken, BrokerError> {
        let args = [JOB_LEASE_MS, JOB_ATTEMPTS_MAX.into(), JOB_LOOKS_MAX].map(|number| number.to_string());
        let args: Vec<_> = [worker].into_iter().chain(args.iter().map(String::as_str)).collect();
        let (given_up, fields): (u64, Fields) = self.job_verb("take", &args).await?;
        let job = if fields.is_empty() { None } else { Some(read(fields)?) };
        Ok(Taken { job, given_up })
    }

    async fn report_job(&self, handle: &str, attempt: u32, progress: u8) -> Result<Held, BrokerError> {
        let args = [attempt.to_string(), progress.to_string(), JOB_LEASE_MS.to_string()];
        let held = self.job_verb("report", &[handle, &args[0], &args[1], &args[2]]).await?;
        Ok(Held::from_flag(held))
    }

    async fn finish_job(&self, handle: &str, attempt: u32, result: &str) -> Result<Held, BrokerError> {
        let args = [attempt.to_string(), JOB_RESULT_MAX_BYTES.to_string()];
        let held = self.job_verb("done", &[handle, &args[0], result, &args[1]]).await?;
        Ok(Held::from_flag(held))
    }

    async fn fail_job(&self, handle: &str, attempt: u32, reason: &str) -> Result<Held, BrokerError> {
        let numbers = [JOB_RESULT_MAX_BYTES as u64, JOB_ATTEMPTS_MAX.into(), pause_ms(attempt)];
        let (attempt, numbers) = (attempt.to_string(), numbers.map(|number| number.to_string()));
        let args = [handle, &attempt, reason, &numbers[0], &numbers[1], &numbers[2]];
        Ok(Held::from_flag(self.job_verb("fail", &args).await?))
    }

    async fn release_job(&self, handle: &str, attempt: u32) -> Result<Held, BrokerError> {
        Ok(Held::from_flag(self.job_verb("release", &[handle, &attempt.to_string()]).await?))
    }

    async fn job(&self, handle: &str) -> Result<Option<Job>, BrokerError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.names().job(handle));
        let fields: Fields = self.read(&command).await?;
        if fields.is_empty() { Ok(None) } else { read(fields).map(Some) }
    }

    async fn jobs_of(&self, owner: &Audience) -> Result<Vec<Job>, BrokerError> {
        let jobs: Vec<Fields> = self.job_verb("list", &[&owner.to_string()]).await?;
        jobs.into_iter().map(read).collect()
    }
}

/// From the fields of a job's hash.
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
