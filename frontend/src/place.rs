//! The state from which a reloaded page continues.

use carillon_protocol::{Fields, Status, object, quoted};

use crate::inbox::{Inbox, Message};
use crate::storage::Kept;

const KEY: &str = "carillon-place";

/// The state of a page when it was left.
#[derive(Default)]
pub struct Place {
    /// The cursor before everything that it showed.
    pub since: Option<String>,
    /// The messages that it sent, oldest first.
    pub sent: Vec<Message>,
}

impl Place {
    /// Returns the stored state of the user's page in this tab.
    pub fn kept(user: Option<&str>) -> Self {
        Kept::InTab.read(KEY).and_then(|json| Self::read(&json, user)).unwrap_or_default()
    }

    fn read(json: &str, user: Option<&str>) -> Option<Self> {
        let fields = Fields::read(json)?;
        let place = fields.object("place")?;
        if place.text("user").as_deref() != user {
            return None;
        }
        let sent = fields.objects("sent").iter().filter_map(message).collect();
        Some(Self { since: place.text("since"), sent })
    }

    /// Stores the state of the page.
    pub fn keep(inbox: &Inbox) {
        Kept::InTab.write(KEY, Some(&Self::write(inbox)));
    }

    fn write(inbox: &Inbox) -> String {
        let place =
            object(&[("user", inbox.me().map(quoted)), ("since", inbox.since().as_deref().map(quoted))]);
        let sent: Vec<_> = inbox.sent().messages().map(|message| to_json(message)).collect();
        format!("{{{}:{place},{}:[{}]}}", quoted("place"), quoted("sent"), sent.join(","))
    }

    /// Removes the stored state.
    pub fn forget() {
        Kept::InTab.write(KEY, None);
    }
}

fn to_json(message: &Message) -> String {
    let Message { id, to, text, at_ms, status, failed, .. } = message;
    object(&[
        ("id", Some(quoted(id))),
        ("to", Some(quoted(to))),
        ("text", Some(quoted(text))),
        ("at_ms", Some(quoted(&at_ms.to_string()))),
        ("status", status.map(|status| quoted(status.as_str()))),
        ("failed", failed.as_deref().map(quoted)),
    ])
}

fn message(fields: &Fields) -> Option<Message> {
    Some(Message {
        slot: 0,
        id: fields.text("id")?,
        to: fields.text("to")?,
        text: fields.text("text")?,
        at_ms: fields.text("at_ms")?.parse().ok()?,
        status: fields.text("status").and_then(|status| Status::read(&status)),
        failed: fields.text("failed"),
    })
}

#[cfg(test)]
mod tests {
    use carillon_protocol::Status;

    use super::*;
    use crate::clock::Now;
    use crate::inbox::{Event, Past};

    #[test]
    fn a_reloaded_page_finds_the_messages_of_its_user_only() {
        let mut inbox = Inbox::default();
        let mut apply = |event| inbox.apply(Now { ms: 0, wall_ms: 7 }, event);
        apply(Event::Began(Some("anna".into())));
        apply(Event::Filled(Past { since: Some("a.1-0".into()), ..Past::default() }));
        for id in ["one", "two"] {
            apply(Event::Send { id: id.into(), to: "bob".into(), text: "\"é\"".into() });
        }
        apply(Event::Status { id: "one".into(), status: Status::Delivered });
        apply(Event::Refused { id: "two".into(), why: "no".into() });
        let json = Place::write(&inbox);
        assert!(Place::read(&json, Some("bob")).is_none() && Place::read(&json, None).is_none());
        let place = Place::read(&json, Some("anna")).unwrap();
        assert_eq!(place.since.as_deref(), Some("a.1-0"));
        let sent = inbox.sent().messages().map(|message| Message { slot: 0, ..(**message).clone() });
        assert_eq!(place.sent, sent.collect::<Vec<_>>());
    }

    #[test]
    fn an_anonymous_page_finds_the_state_of_an_anonymous_page() {
        let json = Place::write(&Inbox::default());
        let place = Place::read(&json, None).unwrap();
        assert!(place.since.is_none() && place.sent.is_empty() && Place::read(&json, Some("anna")).is_none());
    }
}
