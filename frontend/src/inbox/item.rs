use carillon_protocol::http::JobState;
use carillon_protocol::{
    Action, Audience, Cursor, Delivery, Fields, Named, Notification, Severity, parse_timestamp,
};
use serde_json::value::RawValue;

use super::job::{JOB_KEY, Job, severity};
use crate::clock::Now;

/// A notification as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its slot on the screen. A notification that replaces another has the same.
    pub slot: u64,
    /// The notification's id.
    pub id: String,
    /// The title, which may be empty.
    pub title: String,
    /// The text, which may be empty.
    pub body: String,
    /// The severity.
    pub severity: Severity,
    /// The replica that claimed it, if that is known.
    pub replica: String,
    /// The sender, if it is a message to this user alone.
    pub sender: Option<String>,
    /// The job that it reports.
    pub job: Option<Job>,
    /// Its cursor.
    pub cursor: Option<Cursor>,
    /// When it was created, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its link, if that is safe.
    pub action: Option<Action>,
    collapse: Option<Collapse>,
    /// On the page's clock, which cannot be set.
    expires_ms: Option<u64>,
}

/// The key by which a later notification replaces this one, with its sender: a sender cannot replace the notification of
/// another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collapse {
    from: Option<String>,
    key: String,
}

impl Item {
    /// Creates an item for a notification that arrived at `now`, without its slot.
    pub(super) fn new(now: Now, delivery: Delivery) -> Self {
        let Delivery { notification, claimed_by, cursor } = delivery;
        let expires_ms = notification.expires_at_ms().map(|at| now.at(at));
        let at_ms = parse_timestamp(&notification.created_at).unwrap_or(now.wall_ms);
        let Notification { id, title, body, severity, from, to, collapse_key, action, data, .. } =
            notification;
        let job =
            collapse_key.as_deref().filter(|_| from.is_none()).and_then(|key| job(key, data.as_deref()));
        let body = job.as_ref().map_or(body, Job::words);
        Self {
            slot: 0,
            id,
            title,
            body,
            severity,
            replica: claimed_by,
            sender: from.clone().filter(|_| matches!(to, Audience::User(_))),
            job,
            cursor: cursor.parse().ok(),
            at_ms,
            action: action.filter(Action::is_safe),
            collapse: collapse_key.map(|key| Collapse { from, key }),
            expires_ms,
        }
    }

    /// Returns the heading: the sender, the title, or both.
    pub fn heading(&self) -> String {
        match &self.sender {
            Some(sender) if self.title.is_empty() => sender.clone(),
            Some(sender) => format!("{sender}: {}", self.title),
            None => self.title.clone(),
        }
    }

    /// Creates an item for a job without a report on this page.
    pub(super) fn of_job(now: Now, state: JobState) -> Self {
        let at_ms = parse_timestamp(&state.created_at).unwrap_or(now.wall_ms);
        let job = Job::from(&state);
        let (severity, body) = (severity(state.status), job.words());
        let key = Job::collapse_key(&state.id);
        Self {
            slot: 0,
            id: key.clone(),
            title: state.name,
            body,
            severity,
            replica: String::new(),
            sender: None,
            job: Some(job),
            cursor: None,
            at_ms,
            action: None,
            collapse: Some(Collapse { from: None, key }),
            expires_ms: None,
        }
    }

    /// Returns the sender and id of a message from another user.
    pub fn named(&self) -> Option<Named> {
        Some(Named::Sent { from: self.sender.clone()?, id: self.id.clone() })
    }

    /// Whether it reports a job that has not ended.
    pub fn is_running(&self) -> bool {
        self.job.as_ref().is_some_and(|job| !job.status.finished())
    }

    /// Whether `later` reports an earlier state of the same job.
    pub(super) fn outdates(&self, later: &Self) -> bool {
        self.job.as_ref().zip(later.job.as_ref()).is_some_and(|(own, other)| own.is_ahead_of(other))
    }

    /// Whether `later` replaces this item.
    pub(super) fn gives_way_to(&self, later: &Self) -> bool {
        self.collapse.is_some() && self.collapse == later.collapse
    }

    /// Whether a later item may replace it.
    pub fn collapses(&self) -> bool {
        self.collapse.is_some()
    }

    /// When it expires, on the page's clock.
    pub(super) fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }

    /// Whether it has expired.
    pub(super) fn expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }

    /// Returns the announcement for a screen reader.
    pub fn words(&self) -> String {
        if self.is_running() {
            // Not every step is announced.
            return format!("{}: job started", self.title);
        }
        let mut words = match (&self.sender, self.severity) {
            (Some(sender), _) => format!("Message from {sender}. "),
            (None, Severity::Info) => String::new(),
            (None, Severity::Success) => "Success: ".to_owned(),
            (None, Severity::Warning) => "Warning: ".to_owned(),
            (None, Severity::Error) => "Error: ".to_owned(),
        };
        for part in [&self.title, &self.body] {
            if !part.is_empty() {
                words.push_str(part);
                words.push_str(if part.ends_with(['.', '!', '?', '…']) { " " } else { ". " });
            }
        }
        if self.sender.is_none() && !self.replica.is_empty() {
            words.push_str("Claimed by ");
            words.push_str(&self.replica);
        }
        words.trim_end().to_owned()
    }
}

/// Reads a worker's report, whose collapse key has the job's id.
fn job(collapse_key: &str, data: Option<&RawValue>) -> Option<Job> {
    let data = data.filter(|_| collapse_key.starts_with(JOB_KEY))?;
    let job = Job::read(&Fields::read(data.get())?.object("job")?)?;
    (Job::collapse_key(&job.id) == collapse_key).then_some(job)
}
