use carillon_protocol::http::JobState;
use carillon_protocol::{Fields, JobStatus, Severity};

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
        let status = JobStatus::read(&fields.text("status")?)?;
        Some(Self { id: fields.text("id")?, status, progress: fields.percent("progress") })
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

impl From<&JobState> for Job {
    /// Converts the state as a notification would show it.
    fn from(state: &JobState) -> Self {
        Self { id: state.id.clone(), status: state.status, progress: state.progress }
    }
}

/// One that was just asked for.
#[must_use]
pub fn queued(id: String, name: &str) -> JobState {
    JobState {
        id,
        name: name.to_owned(),
        status: JobStatus::Queued,
        progress: 0,
        result: None,
        created_at: String::new(),
        updated_at: String::new(),
    }
}

pub(super) fn severity(status: JobStatus) -> Severity {
    match status {
        JobStatus::Queued | JobStatus::Running => Severity::Info,
        JobStatus::Done => Severity::Success,
        JobStatus::Failed => Severity::Error,
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
            (state.name.as_str(), state.progress, Job::from(&state).words()),
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
