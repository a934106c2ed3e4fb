use carillon_protocol::{Action, Delivery, Notification, Severity, parse_timestamp};

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
    /// The replica that won the race for it.
    pub replica: String,
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
        let Delivery { notification, claimed_by, .. } = delivery;
        let expires_ms = notification.expires_at_ms().map(|at| now.at(at));
        let at_ms = parse_timestamp(&notification.created_at).unwrap_or(now.wall_ms);
        let Notification { id, title, body, severity, from, collapse_key, action, .. } = notification;
        Self {
            slot: 0,
            id,
            title,
            body,
            severity,
            replica: claimed_by,
            at_ms,
            action: action.filter(Action::is_safe),
            collapse: collapse_key.map(|key| Collapse { from, key }),
            expires_ms,
        }
    }

    /// Whether `later` takes this one's place.
    pub(super) fn gives_way_to(&self, later: &Self) -> bool {
        self.collapse.is_some() && self.collapse == later.collapse
    }

    /// Whether it may still be replaced by a later one.
    pub(super) fn collapses(&self) -> bool {
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
        let mut words = match self.severity {
            Severity::Info => String::new(),
            Severity::Success => "Success: ".to_owned(),
            Severity::Warning => "Warning: ".to_owned(),
            Severity::Error => "Error: ".to_owned(),
        };
        for part in [&self.title, &self.body] {
            if !part.is_empty() {
                words.push_str(part);
                words.push_str(if part.ends_with(['.', '!', '?', '…']) { " " } else { ". " });
            }
        }
        words.push_str("Claimed by ");
        words.push_str(&self.replica);
        words
    }
}
