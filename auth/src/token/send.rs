use std::str::FromStr;

use carillon_protocol::Audience;
use carillon_protocol::limits::PRESENCE_TOPIC;

use super::TopicPattern;

/// To whom somebody may send in their own name: `user:NAME` or `topic:NAME`; with a star at its end, all whose names begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendPattern {
    /// One user, or all whose names begin so.
    User {
        /// The name, or how it begins.
        name: String,
        /// Whether it is a beginning.
        is_prefix: bool,
    },
    /// Topics.
    Topic(TopicPattern),
}

impl SendPattern {
    /// Whether this lets its holder send to `to`.
    #[must_use]
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
                // What stands before a star may be nothing.
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

/// What a token says of sending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MaySend {
    /// Nothing: the service decides.
    #[default]
    Unsaid,
    /// To these, and nobody else.
    To(Vec<SendPattern>),
}

impl super::Identity {
    /// Whether the token lets its holder send to `to`. Where it says nothing of that, `people_send` opens users, and the
    /// topics that it names to read; who is online is said by nobody but the service.
    #[must_use]
    pub fn may_send(&self, to: &Audience, people_send: bool) -> bool {
        match (&self.send, to) {
            (MaySend::To(patterns), _) => patterns.iter().any(|pattern| pattern.matches(to)),
            (MaySend::Unsaid, Audience::User(_)) => people_send,
            (MaySend::Unsaid, Audience::Topic(topic)) => {
                people_send && !topic.starts_with(PRESENCE_TOPIC) && self.may_read(topic)
            }
            (MaySend::Unsaid, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_a_user_or_a_topic_or_how_they_begin() {
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
