use carillon_protocol::http::JobState;
use carillon_protocol::{
    Action, Audience, Cursor, Delivery, Fields, Named, Notification, Severity, parse_timestamp,
};
use serde_json::value::RawValue;

use super::job::{JOB_KEY, Job, severity};
use crate::clock::Now;

/// One notification as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its place on the screen. One that takes another's place has the same.
    pub slot: u64,
    /// The notification's id.
    pub id: String,
    /// A few words; may be empty.
    pub title: String,
    /// The text; may be empty.
    pub body: String,
    /// How loud it is.
    pub severity: Severity,
    /// The replica that won the race for it, where that is known.
    pub replica: String,
    /// The user who sent it, where it is a message to this user alone.
    pub sender: Option<String>,
    /// The job that it tells of.
    pub job: Option<Job>,
    /// Where it stands among all that came.
    pub cursor: Option<Cursor>,
    /// When it was made, in milliseconds since 1970.
    pub at_ms: u64,
    /// Something to do about it, where its link is one of the web.
    pub action: Option<Action>,
    collapse: Option<Collapse>,
    /// On the page's clock, which no one sets.
    expires_ms: Option<u64>,
}

/// What a later notification is recognised by. One sender cannot take the place of another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collapse {
    from: Option<String>,
    key: String,
}

impl Item {
    /// What came at `now`, not yet given its slot.
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

    /// What stands above the text: who writes, what it is about, or both.
    #[must_use]
    pub fn heading(&self) -> String {
        match &self.sender {
            Some(sender) if self.title.is_empty() => sender.clone(),
            Some(sender) => format!("{sender}: {}", self.title),
            None => self.title.clone(),
        }
    }

    /// A job that nothing has been heard of on this page.
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

    /// What the server knows a message from another user by.
    #[must_use]
    pub fn named(&self) -> Option<Named> {
        Some(Named::Sent { from: self.sender.clone()?, id: self.id.clone() })
    }

    /// Whether it tells of a job that is not finished.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.job.as_ref().is_some_and(|job| !job.status.finished())
    }

    /// Whether `later` tells of the same job and says less.
    pub(super) fn outdates(&self, later: &Self) -> bool {
        self.job.as_ref().zip(later.job.as_ref()).is_some_and(|(own, other)| own.is_ahead_of(other))
    }

    /// Whether `later` takes this one's place.
    pub(super) fn gives_way_to(&self, later: &Self) -> bool {
        self.collapse.is_some() && self.collapse == later.collapse
    }

    /// Whether it may still be replaced by a later one.
    #[must_use]
    pub fn collapses(&self) -> bool {
        self.collapse.is_some()
    }

    /// When it stops being worth showing, on the page's clock.
    pub(super) fn expires_ms(&self) -> Option<u64> {
        self.expires_ms
    }

    /// Whether it has stopped being worth showing.
    pub(super) fn expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }

    /// What a screen reader says when it comes.
    #[must_use]
    pub fn words(&self) -> String {
        if self.runs() {
            // Not every step is read out.
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

/// What a worker's report says: its key is the job's own.
fn job(collapse_key: &str, data: Option<&RawValue>) -> Option<Job> {
    let data = data.filter(|_| collapse_key.starts_with(JOB_KEY))?;
    let job = Job::read(&Fields::read(data.get())?.object("job")?)?;
    (Job::collapse_key(&job.id) == collapse_key).then_some(job)
}
