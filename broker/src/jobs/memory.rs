//! What jobs.lua does, inside one process.

use std::collections::{BTreeSet, HashMap, VecDeque};

use carillon_protocol::{Audience, JobStatus, Notification, Severity};
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{EnqueueError, Held, Job, NewJob, Taken, pause_ms};
use crate::BrokerError;
use crate::limits::{JOB_ATTEMPTS_MAX, JOB_KEEP_MS, JOB_LEASE_MS, JOB_LOOKS_MAX, JOBS_LISTED_MAX, JOBS_MAX};
use crate::memory::MemoryEngine;

/// The queue of the in-memory store. What is pushed to the list goes into `reports`.
#[derive(Clone, Default)]
pub(crate) struct Jobs {
    kept: HashMap<String, Kept>,
    /// Ids by the moment, in milliseconds, at which each is due; the number keeps the order within one.
    queue: BTreeSet<(u64, u64, String)>,
    /// Ids by the moment, in milliseconds, at which each is forgotten.
    ends: BTreeSet<(u64, String)>,
    /// The newest first.
    listed: HashMap<Audience, VecDeque<String>>,
    queued: u64,
    /// Notifications to be pushed, oldest first.
    pub(crate) reports: Vec<Vec<u8>>,
}

#[derive(Clone)]
struct Kept {
    job: Job,
    /// Where it is in the queue.
    due: Option<(u64, u64)>,
    reports: u64,
    /// Attempts that were given back.
    released: u32,
    /// When it is forgotten.
    until_ms: u64,
}

impl Kept {
    /// How many attempts went wrong, with the present one.
    fn failures(&self) -> u32 {
        self.job.attempt - self.released
    }
}

impl MemoryEngine {
    pub(crate) fn enqueue_job(&self, job: &NewJob) -> Result<Job, EnqueueError> {
        self.with_jobs(|jobs, now_ms| jobs.enqueue(job, now_ms))?
    }

    pub(crate) fn take_job(&self, _worker: &str) -> Result<Taken, BrokerError> {
        self.with_jobs(Jobs::take)
    }

    pub(crate) fn report_job(&self, id: &str, attempt: u32, progress: u8) -> Result<Held, BrokerError> {
        self.with_jobs(|jobs, now_ms| jobs.report(id, attempt, progress, now_ms))
    }

    pub(crate) fn finish_job(&self, id: &str, attempt: u32, result: &str) -> Result<Held, BrokerError> {
        self.with_jobs(|jobs, now_ms| jobs.finish(id, attempt, result, now_ms))
    }

    pub(crate) fn fail_job(&self, id: &str, attempt: u32, reason: &str) -> Result<Held, BrokerError> {
        self.with_jobs(|jobs, now_ms| jobs.fail(id, attempt, reason, now_ms))
    }

    pub(crate) fn release_job(&self, id: &str, attempt: u32) -> Result<Held, BrokerError> {
        self.with_jobs(|jobs, now_ms| jobs.release(id, attempt, now_ms))
    }

    pub(crate) fn job(&self, id: &str) -> Result<Option<Job>, BrokerError> {
        self.with_jobs(|jobs, now_ms| jobs.get(id, now_ms))
    }

    pub(crate) fn jobs_of(&self, owner: &Audience) -> Result<Vec<Job>, BrokerError> {
        self.with_jobs(|jobs, now_ms| jobs.of(owner, now_ms))
    }
}

impl Jobs {
    fn enqueue(&mut self, new: &NewJob, now_ms: u64) -> Result<Job, EnqueueError> {
        self.forget(now_ms);
        if let Some(kept) = self.kept.get(&new.id) {
            let is_ours = kept.job.new.owner == new.owner;
            return if is_ours { Ok(kept.job.clone()) } else { Err(EnqueueError::Conflict) };
        }
        if self.queue.len() >= JOBS_MAX {
            return Err(EnqueueError::Full);
        }
        let job = Job {
            new: new.clone(),
            status: JobStatus::Queued,
            progress: 0,
            result: None,
            attempt: 0,
            created_ms: now_ms,
            updated_ms: now_ms,
        };
        self.kept.insert(
            new.id.clone(),
            Kept { job: job.clone(), due: None, reports: 0, released: 0, until_ms: 0 },
        );
        let listed = self.listed.entry(new.owner.clone()).or_default();
        listed.push_front(new.id.clone());
        listed.truncate(JOBS_LISTED_MAX);
        self.change(&new.id, now_ms, Some(now_ms), |_| {});
        Ok(job)
    }

    fn take(&mut self, now_ms: u64) -> Taken {
        self.forget(now_ms);
        let mut given_up = 0;
        for _ in 0..JOB_LOOKS_MAX {
            let due = self.queue.first().filter(|(due_ms, _, _)| *due_ms <= now_ms);
            let Some(id) = due.map(|(_, _, id)| id.clone()) else { break };
            if self.kept[&id].failures() < JOB_ATTEMPTS_MAX {
                self.change(&id, now_ms, Some(now_ms + JOB_LEASE_MS), |job| {
                    job.status = JobStatus::Running;
                    job.progress = 0;
                    job.attempt += 1;
                    job.result = None;
                });
                return Taken { job: self.get(&id, now_ms), given_up };
            }
            given_up += 1;
            let reason = format!("no worker came to its end in {JOB_ATTEMPTS_MAX} attempts");
            self.change(&id, now_ms, None, |job| {
                job.status = JobStatus::Failed;
                job.result = Some(json!(reason).to_string());
            });
        }
        Taken { job: None, given_up }
    }

    fn report(&mut self, id: &str, attempt: u32, progress: u8, now_ms: u64) -> Held {
        let Some(JobStatus::Running) = self.status(id, attempt, now_ms) else { return Held::Lost };
        let due = Some(now_ms + JOB_LEASE_MS);
        if self.kept[id].job.progress < progress {
            self.change(id, now_ms, due, |job| job.progress = progress);
        } else {
            self.set_due(id, now_ms, due);
        }
        Held::Yes
    }

    fn finish(&mut self, id: &str, attempt: u32, result: &str, now_ms: u64) -> Held {
        match self.status(id, attempt, now_ms) {
            Some(JobStatus::Running) => self.change(id, now_ms, None, |job| {
                job.status = JobStatus::Done;
                job.progress = 100;
                job.result = Some(result.to_owned());
            }),
            Some(JobStatus::Done) => {}
            _ => return Held::Lost,
        }
        Held::Yes
    }

    fn fail(&mut self, id: &str, attempt: u32, reason: &str, now_ms: u64) -> Held {
        match self.status(id, attempt, now_ms) {
            Some(JobStatus::Running) => {}
            Some(JobStatus::Queued | JobStatus::Failed) => return Held::Yes,
            _ => return Held::Lost,
        }
        let again = self.kept[id].failures() < JOB_ATTEMPTS_MAX;
        self.change(id, now_ms, again.then(|| now_ms + pause_ms(attempt)), |job| {
            job.status = if again { JobStatus::Queued } else { JobStatus::Failed };
            job.result = Some(reason.to_owned());
        });
        Held::Yes
    }

    fn release(&mut self, id: &str, attempt: u32, now_ms: u64) -> Held {
        match self.status(id, attempt, now_ms) {
            Some(JobStatus::Running) => {}
            Some(JobStatus::Queued) => return Held::Yes,
            _ => return Held::Lost,
        }
        if let Some(kept) = self.kept.get_mut(id) {
            kept.released += 1;
        }
        self.change(id, now_ms, Some(now_ms), |job| job.status = JobStatus::Queued);
        Held::Yes
    }

    fn get(&self, id: &str, now_ms: u64) -> Option<Job> {
        self.kept.get(id).filter(|kept| now_ms < kept.until_ms).map(|kept| kept.job.clone())
    }

    fn of(&self, owner: &Audience, now_ms: u64) -> Vec<Job> {
        let listed = self.listed.get(owner).into_iter().flatten();
        listed.filter_map(|id| self.get(id, now_ms)).collect()
    }

    /// How the job stands, if this attempt at it is the one that counts.
    fn status(&self, id: &str, attempt: u32, now_ms: u64) -> Option<JobStatus> {
        self.get(id, now_ms).filter(|job| job.attempt == attempt).map(|job| job.status)
    }

    /// Changes a job, says when it is due again, if ever, and tells of it.
    fn change(&mut self, id: &str, now_ms: u64, due: Option<u64>, change: impl FnOnce(&mut Job)) {
        let Some(kept) = self.kept.get_mut(id) else { return };
        change(&mut kept.job);
        kept.job.updated_ms = now_ms;
        self.reports.push(report(&kept.job, kept.reports));
        kept.reports += 1;
        self.set_due(id, now_ms, due);
    }

    fn set_due(&mut self, id: &str, now_ms: u64, due: Option<u64>) {
        let Some(kept) = self.kept.get_mut(id) else { return };
        self.ends.remove(&(kept.until_ms, id.to_owned()));
        kept.until_ms = now_ms + JOB_KEEP_MS;
        self.ends.insert((kept.until_ms, id.to_owned()));
        if let Some((due_ms, number)) = kept.due.take() {
            self.queue.remove(&(due_ms, number, id.to_owned()));
        }
        if let Some(due_ms) = due {
            self.queued += 1;
            kept.due = Some((due_ms, self.queued));
            self.queue.insert((due_ms, self.queued, id.to_owned()));
        }
    }

    /// Redis does this by itself.
    fn forget(&mut self, now_ms: u64) {
        while let Some((_, id)) = self.ends.first().filter(|(until_ms, _)| *until_ms <= now_ms).cloned() {
            self.set_due(&id, now_ms, None);
            let Some(kept) = self.kept.remove(&id) else { return };
            self.ends.remove(&(kept.until_ms, id.clone()));
            let owner = &kept.job.new.owner;
            let listed = self.listed.entry(owner.clone()).or_default();
            listed.retain(|other| *other != id);
            if listed.is_empty() {
                self.listed.remove(owner);
            }
        }
    }
}

/// The part of a report that is for programs.
#[derive(Serialize)]
struct Data<'a> {
    job: Stands<'a>,
}

#[derive(Serialize)]
struct Stands<'a> {
    id: &'a str,
    status: &'a str,
    progress: u8,
    /// In the worker's own bytes.
    result: Option<&'a RawValue>,
}

/// The notification that tells how a job stands.
fn report(job: &Job, number: u64) -> Vec<u8> {
    let NewJob { id, to, name, .. } = &job.new;
    let (status, progress) = (job.status.as_str(), job.progress);
    let (severity, body) = match job.status {
        JobStatus::Queued => (Severity::Info, status.to_owned()),
        JobStatus::Running => (Severity::Info, format!("{progress} %")),
        JobStatus::Done => (Severity::Success, status.to_owned()),
        JobStatus::Failed => (Severity::Error, status.to_owned()),
    };
    let result = job.result.as_deref().and_then(|json| serde_json::from_str(json).ok());
    let notification = Notification {
        id: format!("job:{id}:{number}"),
        title: name.clone(),
        severity,
        to: to.clone(),
        collapse_key: Some(format!("job:{id}")),
        data: to_raw_value(&Data { job: Stands { id, status, progress, result } }).ok(),
        ..Notification::text(body)
    };
    serde_json::to_vec(&notification).unwrap_or_default()
}
