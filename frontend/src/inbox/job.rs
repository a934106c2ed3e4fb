use carillon_protocol::{JobStatus, Severity};

use crate::fields::Fields;

/// The prefix of the collapse key of a job's reports.
pub(super) const JOB_KEY: &str = "job:";

/// The report of a job in a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The id.
    pub id: String,
    /// The status.
    pub status: JobStatus,
    /// The progress, in percent.
    pub progress: u8,
}

impl Job {
    /// Reads one; `None` when something is missing.
    pub fn read(fields: &Fields) -> Option<Self> {
        let status = fields.text("status")?.parse().ok()?;
        let progress = u8::try_from(fields.number("progress").unwrap_or_default()).unwrap_or(100);
        Some(Self { id: fields.text("id")?, status, progress })
    }

    /// The key that all reports of a job collapse by.
    pub fn collapse_key(id: &str) -> String {
        format!("{JOB_KEY}{id}")
    }

    /// Returns the status for people.
    pub(super) fn words(&self) -> String {
        match self.status {
            JobStatus::Queued => "Waits for a worker".to_owned(),
            JobStatus::Running => format!("{} %", self.progress),
            JobStatus::Done => "Done".to_owned(),
            JobStatus::Failed => "Failed".to_owned(),
        }
    }

    /// Whether `later` is an earlier state: reports are shown only as they rise, in whatever order they arrive.
    pub(super) fn is_ahead_of(&self, later: &Self) -> bool {
        let rank = |job: &Self| (job.status.finished(), job.progress, job.status);
        rank(self) > rank(later)
    }
}

/// A job of `GET /api/jobs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobState {
    /// The id.
    pub id: String,
    /// The status.
    pub status: JobStatus,
    /// The progress, in percent.
    pub progress: u8,
    /// The name.
    pub name: String,
    /// When it was created, RFC 3339.
    pub created_at: String,
}

impl JobState {
    /// Creates the state of a job that was just requested.
    pub fn new(id: String, name: &str) -> Self {
        let (name, created_at) = (name.to_owned(), String::new());
        Self { id, status: JobStatus::Queued, progress: 0, name, created_at }
    }

    /// Reads one; `None` when something is missing.
    pub fn read(fields: &Fields) -> Option<Self> {
        let Job { id, status, progress } = Job::read(fields)?;
        let [name, created_at] = ["name", "created_at"].map(|name| fields.text(name).unwrap_or_default());
        Some(Self { id, status, progress, name, created_at })
    }

    /// Returns the report of this state.
    pub(super) fn job(&self) -> Job {
        Job { id: self.id.clone(), status: self.status, progress: self.progress }
    }

    pub(super) fn severity(&self) -> Severity {
        match self.status {
            JobStatus::Queued | JobStatus::Running => Severity::Info,
            JobStatus::Done => Severity::Success,
            JobStatus::Failed => Severity::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_from_a_response() {
        let json = r#"{"id":"j","name":"Import","status":"running","progress":40,"result":null,"created_at":"2026-11-21T07:45:00Z","updated_at":"2026-11-21T07:45:01Z"}"#;
        let state = JobState::read(&Fields::read(json).unwrap()).unwrap();
        assert_eq!(
            (state.name.as_str(), state.progress, state.job().words()),
            ("Import", 40, "40 %".to_owned())
        );
    }

    #[test]
    fn an_end_is_ahead_of_all_progress() {
        let job = |status, progress| Job { id: "j".to_owned(), status, progress };
        let rising = [
            job(JobStatus::Queued, 0),
            job(JobStatus::Running, 0),
            job(JobStatus::Running, 90),
            job(JobStatus::Failed, 90),
            job(JobStatus::Done, 100),
        ];
        for pair in rising.windows(2) {
            assert!(pair[1].is_ahead_of(&pair[0]) && !pair[0].is_ahead_of(&pair[1]), "{pair:?}");
        }
    }
}
