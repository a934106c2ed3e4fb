use std::fmt;
use std::str::FromStr;

use carillon_protocol::is_topic;
use carillon_protocol::limits::{NAME_MAX_BYTES, PRESENCE_TOPIC};

/// Topics that a user may read or send to: a name or, with a star at its end, all names with this prefix. A star anywhere
/// else is part of the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    text: String,
    is_prefix: bool,
}

impl TopicPattern {
    /// Whether this allows `topic`. A star does not match presence topics, unless it comes after `presence:`.
    pub fn matches(&self, topic: &str) -> bool {
        if !self.is_prefix {
            return topic == self.text;
        }
        let is_across = topic.starts_with(PRESENCE_TOPIC) && !self.text.starts_with(PRESENCE_TOPIC);
        topic.starts_with(&self.text) && !is_across
    }
}

impl FromStr for TopicPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !is_topic(text) {
            return Err(format!(
                "a topic has a name of 1 to {NAME_MAX_BYTES} bytes, this one has {}",
                text.len()
            ));
        }
        Ok(match text.strip_suffix('*') {
            Some(prefix) => Self { text: prefix.to_owned(), is_prefix: true },
            None => Self { text: text.to_owned(), is_prefix: false },
        })
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_prefix() {
        for (pattern, topic, expected) in [
            ("news", "news", true),
            ("news", "news2", false),
            ("news", "new", false),
            ("news", "News", false),
            ("news.*", "news.sport", true),
            ("news.*", "news.", true),
            ("news.*", "news", false),
            ("news.*", "old.news.sport", false),
            ("*", "anything", true),
            ("a*b", "a*b", true),
            ("a*b", "axb", false),
            ("a**", "a*b", true),
            ("a**", "ab", false),
            ("*", "presence:ben", false),
            ("p*", "presence:ben", false),
            ("presence*", "presence:ben", false),
            ("presence*", "presence", true),
            ("presence:*", "presence:ben", true),
            ("presence:b*", "presence:ben", true),
            ("presence:b*", "presence:ann", false),
            ("presence:ben", "presence:ben", true),
        ] {
            let parsed: TopicPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(topic), expected, "{pattern} and {topic}");
            assert_eq!(parsed.to_string(), pattern);
        }
        assert!("".parse::<TopicPattern>().is_err());
        assert!("x".repeat(NAME_MAX_BYTES).parse::<TopicPattern>().is_ok());
        assert!("x".repeat(NAME_MAX_BYTES + 1).parse::<TopicPattern>().is_err());
        assert!(format!("presence:{}", "x".repeat(NAME_MAX_BYTES)).parse::<TopicPattern>().is_ok());
    }
}
