use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::limits::{NAME_MAX_BYTES, PRESENCE_TOPIC, TOPIC_MAX_BYTES};

/// The audience of a notification. It is written `"everyone"` or `{"user":"42"}` on the wire and `user:42` in Redis keys,
/// options and logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename_all = "lowercase"))]
pub enum Audience {
    /// Every reader.
    #[default]
    Everyone,
    /// All tabs and devices of one user.
    User(#[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))] String),
    /// One browser session.
    Session(#[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))] String),
    /// The readers of a topic.
    Topic(#[cfg_attr(feature = "schema", schemars(length(min = 1, max = TOPIC_MAX_BYTES)))] String),
    /// One connection, by the id in its `welcome`; it has no history.
    Connection(#[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))] String),
}

/// `notify:bob:state` is the channel of bob's state, so no user may have the name `bob:state`, whose channel would be the
/// same.
const STATE_SUFFIX: &str = ":state";

/// Whether a topic can have this name: 1 to [`NAME_MAX_BYTES`] bytes, to which the prefix of a presence topic does not
/// count.
#[must_use]
pub fn is_topic(name: &str) -> bool {
    let max = if name.starts_with(PRESENCE_TOPIC) { TOPIC_MAX_BYTES } else { NAME_MAX_BYTES };
    (1..=max).contains(&name.len())
}

/// Why a text does not name an audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudienceError(String);

impl fmt::Display for AudienceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AudienceError {}

impl Audience {
    /// The kinds with a name, as they are written.
    pub const NAMED_KINDS: [&'static str; 4] = ["user", "session", "topic", "connection"];

    /// Returns the audience of `kind` with a `name` of 1 to [`NAME_MAX_BYTES`] bytes; for a topic see [`is_topic`].
    ///
    /// # Errors
    /// When the kind is unknown or the name is empty or too long, and for a user whose name ends in `:state`.
    pub fn named(kind: &str, name: &str) -> Result<Self, AudienceError> {
        let fits = if kind == "topic" { is_topic(name) } else { (1..=NAME_MAX_BYTES).contains(&name.len()) };
        if !fits {
            return Err(AudienceError(format!(
                "a {kind} has a name of 1 to {NAME_MAX_BYTES} bytes, this one has {}",
                name.len()
            )));
        }
        if kind == "user" && name.ends_with(STATE_SUFFIX) {
            return Err(AudienceError(format!(
                "a user's name does not end in '{STATE_SUFFIX}': the channel of that name is for the state of another user"
            )));
        }
        let name = name.to_owned();
        match kind {
            "user" => Ok(Self::User(name)),
            "session" => Ok(Self::Session(name)),
            "topic" => Ok(Self::Topic(name)),
            "connection" => Ok(Self::Connection(name)),
            _ => Err(AudienceError(format!(
                "unknown audience '{kind}': use everyone, user, session, topic or connection"
            ))),
        }
    }

    /// Returns the kind as it is written: `everyone`, `user`, ….
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::User(_) => "user",
            Self::Session(_) => "session",
            Self::Topic(_) => "topic",
            Self::Connection(_) => "connection",
        }
    }

    /// Returns the name; `None` for everyone.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Everyone => None,
            Self::User(name) | Self::Session(name) | Self::Topic(name) | Self::Connection(name) => Some(name),
        }
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            None => f.write_str("everyone"),
            Some(name) => write!(f, "{}:{name}", self.kind()),
        }
    }
}

impl FromStr for Audience {
    type Err = AudienceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "everyone" {
            return Ok(Self::Everyone);
        }
        let (kind, name) = text.split_once(':').ok_or_else(|| {
            AudienceError(format!(
                "'{text}' is not an audience: write everyone, user:ID, session:ID, topic:NAME or connection:ID"
            ))
        })?;
        Self::named(kind, name)
    }
}

impl Serialize for Audience {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            None => serializer.serialize_str("everyone"),
            Some(name) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(self.kind(), name)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneAudience;

        impl<'de> Visitor<'de> for OneAudience {
            type Value = Audience;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"everyone\" or an object with exactly one of user, session, topic, connection")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Audience, E> {
                if text == "everyone" {
                    Ok(Audience::Everyone)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Audience, A::Error> {
                let Some((kind, name)) = map.next_entry::<String, Name>()? else {
                    return Err(de::Error::invalid_length(0, &self));
                };
                if map.next_entry::<String, de::IgnoredAny>()?.is_some() {
                    return Err(de::Error::invalid_length(2, &self));
                }
                Audience::named(&kind, &name.0).map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(OneAudience)
    }
}

/// A name as producers write it: a string, or an integer that stands for its digits, as far as every program represents it
/// exactly.
pub(crate) struct Name(pub(crate) String);

/// The largest integer that a double, and so JavaScript and Lua, represents exactly.
const EXACT_MAX: u64 = (1 << 53) - 1;

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneName;

        impl Visitor<'_> for OneName {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a string, or an integer of at most {EXACT_MAX}; write a larger one as a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                Ok(Name(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Name, E> {
                if number > EXACT_MAX {
                    return Err(E::invalid_value(de::Unexpected::Unsigned(number), &self));
                }
                Ok(Name(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Name, E> {
                if number.unsigned_abs() > EXACT_MAX {
                    return Err(E::invalid_value(de::Unexpected::Signed(number), &self));
                }
                Ok(Name(number.to_string()))
            }
        }

        deserializer.deserialize_any(OneName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_the_same_way_that_it_is_read() {
        for text in ["everyone", "user:42", "session:a:b", "topic:news", "connection:x"] {
            let audience: Audience = text.parse().unwrap();
            assert_eq!(audience.to_string(), text);
            let json = serde_json::to_string(&audience).unwrap();
            assert_eq!(serde_json::from_str::<Audience>(&json).unwrap(), audience);
        }
        assert_eq!(serde_json::to_string(&Audience::User("42".into())).unwrap(), r#"{"user":"42"}"#);
    }

    #[test]
    fn refuses_a_text_that_names_no_audience_or_two() {
        for json in [
            r#""all""#,
            "{}",
            r#"{"user":"a","topic":"b"}"#,
            r#"{"user":4.2}"#,
            r#"{"user":""}"#,
            r#"{"herd":"x"}"#,
            "7",
        ] {
            assert!(serde_json::from_str::<Audience>(json).is_err(), "{json}");
        }
        for (before, bytes, is_name) in [
            ("user:", 128, true),
            ("user:", 129, false),
            ("topic:", 128, true),
            ("topic:", 129, false),
            ("topic:presence:", 128, true),
            ("topic:presence:", 129, false),
        ] {
            let text = format!("{before}{}", "x".repeat(bytes));
            assert_eq!(text.parse::<Audience>().is_ok(), is_name, "{before} and {bytes}");
        }
        assert!("nobody".parse::<Audience>().is_err());
        for (text, is_name) in
            [("user:bob:state", false), ("user::state", false), ("user:state", true), ("topic:a:state", true)]
        {
            assert_eq!(text.parse::<Audience>().is_ok(), is_name, "{text}");
        }
    }
}
