use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[cfg(feature = "schema")]
use crate::limits::{JOB_ID_MAX_BYTES, JOB_NAME_MAX_CHARS, JOB_STEPS_MAX};
use crate::{Audience, Fields};

/// How far a background job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// It waits for a worker, for the first time or again.
    Queued,
    /// A worker does it.
    Running,
    /// It is done.
    Done,
    /// It was given up.
    Failed,
}

impl JobStatus {
    /// The word on the wire, in Redis and in style sheets.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more is to come.
    #[must_use]
    pub fn finished(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }

    /// Reads the word; `None` for any other.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Done, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

impl std::str::FromStr for JobStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text).ok_or_else(|| format!("'{text}' is no status"))
    }
}

/// The body of `POST /api/jobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JobRequest {
    /// Makes a repeated request harmless. Letters, digits, dashes and underscores.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = JOB_ID_MAX_BYTES)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it is called on the screen.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = JOB_NAME_MAX_CHARS)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How much there is to do.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = JOB_STEPS_MAX)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Who receives its reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<ReportTo>,
}

/// The recipient of the progress of a job; absent: the session of the request, or else its user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ReportTo {
    /// The session of the request.
    Session,
    /// The signed-in user.
    User,
    /// One connection, by the id in its `welcome`; what it misses is gone.
    Connection(String),
}

/// What `POST /api/jobs` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobAccepted {
    /// The id of the job, given where it had none.
    pub id: String,
    /// How far it is: further than `queued` where it had been started before.
    pub status: JobStatus,
    /// Who receives its reports.
    pub to: Audience,
}

/// A job as its owner sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobState {
    /// Its id among those of its owner.
    pub id: String,
    /// What it is called on the screen.
    pub name: String,
    /// How far it is.
    pub status: JobStatus,
    /// Percent.
    #[cfg_attr(feature = "schema", schemars(range(max = 100)))]
    pub progress: u8,
    /// In the worker's own bytes.
    pub result: Option<Box<RawValue>>,
    /// RFC 3339.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub created_at: String,
    /// RFC 3339.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub updated_at: String,
}

impl JobState {
    /// Reads one; `None` when its id or status is missing.
    #[must_use]
    pub fn read(fields: &Fields) -> Option<Self> {
        let text = |name| fields.text(name).unwrap_or_default();
        Some(Self {
            id: fields.text("id")?,
            name: text("name"),
            status: JobStatus::read(&fields.text("status")?)?,
            progress: fields.percent("progress"),
            result: fields.json("result"),
            created_at: text("created_at"),
            updated_at: text("updated_at"),
        })
    }
}

/// What `GET /api/jobs` answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JobList {
    /// Newest first.
    pub jobs: Vec<JobState>,
}

impl JobList {
    /// Reads one; jobs that cannot be read are left out.
    #[must_use]
    pub fn read(fields: &Fields) -> Self {
        Self { jobs: fields.objects("jobs").iter().filter_map(JobState::read).collect() }
    }
}
