use serde::Serialize;

/// The status of a background job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// It waits for a worker, for the first time or again.
    Queued,
    /// A worker runs it.
    Running,
    /// It is done.
    Done,
    /// It was given up.
    Failed,
}

impl JobStatus {
    /// Returns the status as a word, on the wire, in Redis and in style sheets.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether the job has ended.
    #[must_use]
    pub fn finished(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

impl std::str::FromStr for JobStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Queued, Self::Running, Self::Done, Self::Failed];
        all.into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("'{text}' is not a status"))
    }
}
