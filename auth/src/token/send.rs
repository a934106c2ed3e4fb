use std::str::FromStr;

use carillon_protocol::Audience;
use carillon_protocol::limits::PRESENCE_TOPIC;

use super::TopicPattern;

/// The recipients that a user may send to: `user:NAME` or `topic:NAME`; with a star at its end, all names with this prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendPattern {
    /// One user, or all users with a prefix.
    User {
        /// The name, or the prefix.
        name: String,
        /// Whether it is a prefix.
        is_prefix: bool,
    },
    /// Topics.
    Topic(TopicPattern),
}

impl SendPattern {
    /// Whether this allows to send to `to`.
    pub fn matches(&self, to: &Audience) -> bool {
        match (self, to) {
            (Self::User { name, is_prefix: true }, Audience::User(user)) => user.starts_with(name),
            (Self::User { name, is_prefix: false }, Audience::User(user)) => user == name,
            (Self::Topic(pattern), Audience::Topic(topic)) => pattern.matches(topic),
            _ => false,
        }
    }
}

impl FromStr for SendPattern {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("topic", pattern)) => pattern.parse().map(Self::Topic).map_err(drop),
            Some(("user", name)) => {
                // The prefix before a star may be empty.
                Audience::named("user", name).map_err(drop)?;
                Ok(match name.strip_suffix('*') {
                    Some(prefix) => Self::User { name: prefix.to_owned(), is_prefix: true },
                    None => Self::User { name: name.to_owned(), is_prefix: false },
                })
            }
            _ => Err(()),
        }
    }
}

/// The right of a token to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MaySend {
    /// The token has no claim `send`, so the service decides.
    #[default]
    Unspecified,
    /// To these recipients only.
    To(Vec<SendPattern>),
}

impl super::Identity {
    /// Whether the token allows to send to `to`. Without a claim `send`, `people_send` allows users, and the topics that the
    /// token allows to read, except for presence, which only the service publishes.
    pub fn may_send(&self, to: &Audience, people_send: bool) -> bool {
        match (&self.send, to) {
            (MaySend::To(patterns), _) => patterns.iter().any(|pattern| pattern.matches(to)),
            (MaySend::Unspecified, Audience::User(_)) => people_send,
            (MaySend::Unspecified, Audience::Topic(topic)) => {
                people_send && !topic.starts_with(PRESENCE_TOPIC) && self.may_read(topic)
            }
            (MaySend::Unspecified, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_recipient_or_a_prefix() {
        let user = |name: &str| Audience::User(name.to_owned());
        let topic = |name: &str| Audience::Topic(name.to_owned());
        for (pattern, to, expected) in [
            ("user:ben", user("ben"), true),
            ("user:ben", user("benno"), false),
            ("user:ben", topic("ben"), false),
            ("user:*", user("anybody"), true),
            ("user:b*", user("ben"), true),
            ("user:b*", user("ann"), false),
            ("user:*", topic("news"), false),
            ("topic:news", topic("news"), true),
            ("topic:news.*", topic("news.sport"), true),
            ("topic:*", topic("news"), true),
            ("topic:*", topic("presence:ben"), false),
            ("topic:*", user("ben"), false),
            ("user:*", Audience::Everyone, false),
            ("user:*", Audience::Session("s".to_owned()), false),
            ("user:*", Audience::Connection("c".to_owned()), false),
            ("user:a:b", user("a:b"), true),
        ] {
            assert_eq!(pattern.parse::<SendPattern>().unwrap().matches(&to), expected, "{pattern} {to:?}");
        }
        for wrong in ["", "*", "everyone", "user", "user:", "topic:", "session:s", "connection:*", "User:a"] {
            assert_eq!(wrong.parse::<SendPattern>(), Err(()), "{wrong}");
        }
    }
}
