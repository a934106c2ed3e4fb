//! `POST /api/jobs`, `GET /api/jobs` and `GET /api/jobs/{id}`: background jobs, whose reports reach their owner on any
//! device. `worker` runs them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use carillon_broker::limits::{JOBS_ANONYMOUS_MAX, JOBS_LISTED_MAX, JOBS_MAX, JOBS_OWNER_MAX};
use carillon_broker::{Broker, EnqueueError, Job, NewJob};
use carillon_protocol::http::{JobAccepted, JobList, JobRequest, JobState, ReportTo};
use carillon_protocol::limits::{JOB_ID_MAX_BYTES, JOB_NAME_MAX_CHARS, JOB_STEPS_MAX};
use carillon_protocol::{Audience, FieldError, format_timestamp, read_json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::gate::Gate;
use crate::gate::caller::{Caller, Credentials};
use crate::gate::principal::Right;
use crate::metrics;
use crate::refusal::Refusal;
use crate::request::{query, require_json};
use crate::upkeep::memory::Memory;

/// Maximum bytes of a request body.
const BODY_MAX_BYTES: usize = 4 * 1024;
/// The number of steps of a job that names none.
const STEPS_DEFAULT: u32 = 10;
const NAME_DEFAULT: &str = "Background job";
/// The `Retry-After` of an owner with the maximum of jobs, in seconds: most jobs of the replicas' own workers take longer,
/// so one of five has probably ended by then.
const OWNER_RETRY_S: u64 = 5;

/// The input of a job, for a worker.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Input {
    pub(crate) steps: u32,
}

/// `POST /api/jobs`: answers 202 once the job is in the queue. A repeat with the same id starts nothing.
pub(crate) async fn start(
    State(gate): State<Gate>,
    State(queue): State<Queue>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let has_key = has_key(&gate, &parts)?;
    queue.is_open_to(has_key)?;
    let caller = owner(&gate, &parts, has_key).await?;
    require_json(&parts, "send a job as application/json")?;
    let too_large = || {
        let detail = format!("a job has at most {BODY_MAX_BYTES} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload too large", detail)
    };
    let body = gate.read(&parts, body, BODY_MAX_BYTES, too_large).await?;
    let request: JobRequest = read_json(&body).map_err(|error| invalid(FieldError::new("", error)))?;
    let new = new_job(request, &caller).map_err(invalid)?;
    gate.limits.count_publish_by(caller.user(), caller.network, body.len())?;
    queue.memory.check()?;
    // Jobs that the session started before its user signed in still belong to the user.
    let earlier = match (caller.own_user(), caller.own_session()) {
        (Some(_), Some(session)) => queue.broker.job(&session, &new.id).await?,
        _ => None,
    };
    let Job { new, status, .. } = match earlier {
        Some(job) => job,
        None => queue.broker.enqueue_job(&new).await.map_err(not_enqueued)?,
    };
    metrics::job_accepted();
    queue.added.notify_one();
    let place = [(header::LOCATION, format!("/api/jobs/{}", new.id))];
    let answer = JobAccepted { id: new.id, status, to: new.to };
    Ok((StatusCode::ACCEPTED, place, Json(answer)).into_response())
}

fn new_job(request: JobRequest, caller: &Caller) -> Result<NewJob, FieldError> {
    let JobRequest { id, name, steps, notify } = request;
    let id = id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    // The id is part of a path.
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !(1..=JOB_ID_MAX_BYTES).contains(&id.len()) || !id.bytes().all(is_sign) {
        let detail = format!("1 to {JOB_ID_MAX_BYTES} letters, digits, dashes and underscores");
        return Err(FieldError { limit: Some(JOB_ID_MAX_BYTES as u64), ..FieldError::new("id", detail) });
    }
    let name = name.unwrap_or_else(|| NAME_DEFAULT.to_owned());
    if !(1..=JOB_NAME_MAX_CHARS).contains(&name.chars().count()) {
        let detail = format!("1 to {JOB_NAME_MAX_CHARS} characters");
        return Err(FieldError { limit: Some(JOB_NAME_MAX_CHARS as u64), ..FieldError::new("name", detail) });
    }
    let steps = steps.unwrap_or(STEPS_DEFAULT);
    if !(1..=JOB_STEPS_MAX).contains(&steps) {
        let detail = format!("a number from 1 to {JOB_STEPS_MAX}");
        return Err(FieldError { limit: Some(JOB_STEPS_MAX.into()), ..FieldError::new("steps", detail) });
    }
    let (session, user) = (caller.own_session(), caller.own_user());
    let missing = |what: &str| FieldError::new("notify", format!("the request names no {what}"));
    let to = match notify {
        Some(ReportTo::Session) => session.clone().ok_or_else(|| missing("session"))?,
        Some(ReportTo::User) => user.clone().ok_or_else(|| missing("user"))?,
        Some(ReportTo::Connection(id)) => Audience::named("connection", &id)
            .map_err(|error| FieldError::new("notify", error.to_string()))?,
        None => session.clone().or_else(|| user.clone()).ok_or_else(|| missing("session"))?,
    };
    let owner = user.or(session).ok_or_else(|| missing("session"))?;
    let input = serde_json::json!(Input { steps }).to_string();
    Ok(NewJob { id, owner, to, name, input })
}

fn invalid(fault: FieldError) -> Refusal {
    Refusal::fields("invalid job", vec![fault])
}

/// A job as its owner sees it.
fn state(job: Job) -> JobState {
    JobState {
        id: job.new.id,
        name: job.new.name,
        status: job.status,
        progress: job.progress,
        result: job.result.and_then(|json| RawValue::from_string(json).ok()),
        created_at: format_timestamp(job.created_ms),
        updated_at: format_timestamp(job.updated_ms),
    }
}

/// `GET /api/jobs/{id}`, for its owner.
pub(crate) async fn one(
    State(gate): State<Gate>,
    State(queue): State<Queue>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<JobState>, Refusal> {
    let (parts, _) = request.into_parts();
    let caller = owner(&gate, &parts, has_key(&gate, &parts)?).await?;
    match queue.job_of(&caller, &id).await? {
        Some(job) => Ok(Json(state(job))),
        None => {
            let detail = "jobs are kept for 24 hours after their last change, for their owner";
            Err(Refusal::new(StatusCode::NOT_FOUND, "job not found", detail))
        }
    }
}

/// `GET /api/jobs`: the caller's jobs, newest first.
pub(crate) async fn list(
    State(gate): State<Gate>,
    State(queue): State<Queue>,
    request: Request,
) -> Result<Json<JobList>, Refusal> {
    let (parts, _) = request.into_parts();
    let caller = owner(&gate, &parts, has_key(&gate, &parts)?).await?;
    let mut jobs = Vec::new();
    for owner in caller.own_user().into_iter().chain(caller.own_session()) {
        jobs.extend(queue.broker.jobs_of(&owner).await?);
    }
    jobs.sort_by_key(|job| std::cmp::Reverse(job.created_ms));
    let jobs: Vec<_> = jobs.into_iter().take(JOBS_LISTED_MAX).map(state).collect();
    Ok(Json(JobList { jobs }))
}

/// The queue of jobs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Queue {
    pub(crate) broker: Broker,
    /// Notified when a job was added.
    pub(crate) added: Arc<tokio::sync::Notify>,
    pub(crate) memory: Arc<Memory>,
    /// Whether any client with a session or a token may start jobs.
    pub(crate) is_open: bool,
}

impl Queue {
    /// Refuses clients without the right to start jobs, which cost time of replicas and memory of Redis.
    fn is_open_to(&self, has_key: bool) -> Result<(), Refusal> {
        if self.is_open || has_key {
            return Ok(());
        }
        metrics::job_refused("closed");
        let detail = "start the service with --allow-jobs (ALLOW_JOBS=1), or send one of the keys in API_KEY";
        Err(Refusal::new(StatusCode::FORBIDDEN, "jobs not allowed", detail))
    }

    /// Returns a job of the caller: of the user, or of the session from before the user signed in.
    async fn job_of(&self, caller: &Caller, id: &str) -> Result<Option<Job>, Refusal> {
        if !(1..=JOB_ID_MAX_BYTES).contains(&id.len()) {
            return Ok(None);
        }
        for owner in caller.own_user().into_iter().chain(caller.own_session()) {
            if let Some(job) = self.broker.job(&owner, id).await? {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }
}

fn has_key(gate: &Gate, parts: &Parts) -> Result<bool, Refusal> {
    Ok(gate.keyed(parts, Right::Publish)?.is_some())
}

/// Returns the owner of jobs in a request: a session or a user. An application with a key names the owner: a session, or a
/// user by the token in `?token=`.
async fn owner(gate: &Gate, parts: &Parts, has_key: bool) -> Result<Caller, Refusal> {
    let mut credentials = Credentials::of(gate, parts);
    if has_key {
        credentials.token = query(parts, "token");
    }
    gate.allow_origin(parts)?;
    let caller = gate.identify(parts, credentials).await?;
    if caller.own_user().or_else(|| caller.own_session()).is_none() {
        let detail =
            "name a session in the header Carillon-Session (POST /api/sessions opens one), or send a token";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "authentication required", detail));
    }
    Ok(caller)
}

/// Returns the refusal of a job.
fn not_enqueued(error: EnqueueError) -> Refusal {
    match error {
        EnqueueError::OwnerFull => {
            metrics::job_refused("owner_full");
            let detail =
                format!("{JOBS_OWNER_MAX} of your jobs wait or run; start another one when one has ended");
            Refusal::too_many("too many jobs", detail, OWNER_RETRY_S)
        }
        EnqueueError::AnonymousFull => {
            metrics::job_refused("anonymous_full");
            let detail = format!(
                "{JOBS_ANONYMOUS_MAX} jobs of people who are not signed in wait or run; sign in, or try again later"
            );
            Refusal::unavailable("job queue full", detail, OWNER_RETRY_S)
        }
        EnqueueError::Full => {
            metrics::job_refused("full");
            let detail = format!("{JOBS_MAX} jobs wait or run; try again shortly");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "job queue full", detail)
        }
        EnqueueError::Invalid(detail) => invalid(FieldError::new("", detail)),
        EnqueueError::Broker(error) => error.into(),
    }
}
