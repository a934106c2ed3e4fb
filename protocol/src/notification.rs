use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::audience::Name;
use crate::limits::{
    ACTION_LABEL_MAX_CHARS, ACTION_URL_MAX_BYTES, BODY_MAX_CHARS, ENTRY_MAX_BYTES, NAME_MAX_BYTES,
    TITLE_MAX_CHARS, TRACEPARENT_MAX_BYTES,
};
use crate::{Audience, FieldError, check_json, parse_timestamp, without_bom};

/// How loud a notification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    #[default]
    Info,
    /// Something went well.
    Success,
    /// Something may need a look.
    Warning,
    /// Something failed.
    Error,
}

impl Severity {
    /// All of them, from quiet to loud.
    pub const ALL: [Self; 4] = [Self::Info, Self::Success, Self::Warning, Self::Error];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|severity| severity.as_str() == text);
        known.ok_or_else(|| format!("'{text}' is none of info, success, warning, error"))
    }
}

impl<'de> Deserialize<'de> for Severity {
    /// A severity that a newer server invents reads as `info`; [`Notification::check`] is the strict door.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.parse().unwrap_or_default())
    }
}

/// Something to do about a notification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Action {
    /// The words on the button.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = ACTION_LABEL_MAX_CHARS)))]
    pub label: String,
    /// Where it leads: `http:`, `https:` or relative.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = ACTION_URL_MAX_BYTES)))]
    pub url: String,
}

impl Action {
    /// Whether the link may be followed: `http:`, `https:` or relative. The claim has looked already; a
    /// reader that makes a link of it looks again.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        is_safe_url(&self.url)
    }
}

/// One notification, as its fields are read. The bytes that it came in are kept apart, by
/// [`crate::Entry`], because reading and writing it again would lose unknown fields and the exact
/// form of numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Notification {
    /// Names the notification, so that a repeated push is dropped. Given by the claim where absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", length(min = 1, max = NAME_MAX_BYTES)))]
    pub id: String,
    /// A few words. A notification has a title or a body.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", length(max = TITLE_MAX_CHARS)))]
    pub title: String,
    /// The text.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", length(max = BODY_MAX_CHARS)))]
    pub body: String,
    /// How loud it is.
    #[serde(default, deserialize_with = "nullable")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Severity>"))]
    pub severity: Severity,
    /// Whom it is for.
    #[serde(default, deserialize_with = "nullable")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Audience>"))]
    pub to: Audience,
    /// Who sent it; ids are unique for each sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))]
    pub from: Option<String>,
    /// When it was made, RFC 3339. Given by the claim where absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub created_at: String,
    /// From when on it is worth nothing, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub expires_at: Option<String>,
    /// A later notification with the same key takes this one's place on the screen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))]
    pub collapse_key: Option<String>,
    /// Something to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Any JSON, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// W3C Trace Context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = TRACEPARENT_MAX_BYTES)))]
    pub traceparent: Option<String>,
}

/// An explicit null is as good as an absent field.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Notification {
    /// A notification for everyone with nothing but a body.
    #[must_use]
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            id: String::new(),
            title: String::new(),
            body: body.into(),
            severity: Severity::default(),
            to: Audience::Everyone,
            from: None,
            created_at: String::new(),
            expires_at: None,
            collapse_key: None,
            action: None,
            data: None,
            traceparent: None,
        }
    }

    /// Reads a JSON object strictly: what the API and the claim let through.
    ///
    /// # Errors
    /// Every fault that was found, each with its field and, where one was passed, the limit.
    pub fn check(json: &str) -> Result<Self, Vec<FieldError>> {
        if json.len() > ENTRY_MAX_BYTES {
            return Err(vec![over("", json.len(), ENTRY_MAX_BYTES, "bytes")]);
        }
        let json = without_bom(json);
        check_json(json).map_err(|error| vec![FieldError::new("", format!("not JSON: {error}"))])?;
        let fields: Fields<'_> = serde_json::from_str(json)
            .map_err(|error| vec![FieldError::new("", format!("not a notification: {error}"))])?;
        let mut check = Check { fields, faults: Vec::new() };
        let notification = Self {
            id: check.name("id").unwrap_or_default(),
            title: check.text("title", TITLE_MAX_CHARS).unwrap_or_default(),
            body: check.text("body", BODY_MAX_CHARS).unwrap_or_default(),
            severity: check.parsed("severity").unwrap_or_default(),
            to: check.read("to").unwrap_or(Audience::Everyone),
            from: check.name("from"),
            created_at: check.timestamp("created_at").unwrap_or_default(),
            expires_at: check.timestamp("expires_at"),
            collapse_key: check.name("collapse_key"),
            action: check.action(),
            data: check.fields.get("data").map(ToOwned::to_owned),
            traceparent: check.bytes("traceparent", TRACEPARENT_MAX_BYTES),
        };
        if notification.title.is_empty() && notification.body.is_empty() && check.faults.is_empty() {
            check.faults.push(FieldError::new("body", "a notification needs a title or a body"));
        }
        if check.faults.is_empty() { Ok(notification) } else { Err(check.faults) }
    }

    /// Where in `json` the value of `field` stands; `None` where the field is absent.
    pub(crate) fn span(json: &str, field: &str) -> Option<Range<usize>> {
        let fields: Fields<'_> = serde_json::from_str(json).ok()?;
        let value = fields.get(field)?.get();
        // The value borrows from `json`, so the distance of the two is its place.
        let start = value.as_ptr().addr() - json.as_ptr().addr();
        Some(start..start + value.len())
    }

    /// Milliseconds since 1970 at which it stops being worth showing.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at.as_deref().and_then(parse_timestamp)
    }
}

fn over(field: &str, found: usize, limit: usize, unit: &str) -> FieldError {
    let detail = format!("at most {limit} {unit}, this has {found}");
    FieldError { field: field.to_owned(), detail, limit: u64::try_from(limit).ok() }
}

/// The fields of one JSON object in their own bytes. A name that comes twice is an error, since
/// readers would disagree on which one counts.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields: Vec<(String, &'de RawValue)> = Vec::new();
                let mut names = std::collections::HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !names.insert(name.clone()) {
                        return Err(de::Error::custom(format!("'{name}' comes twice")));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

struct Check<'a> {
    fields: Fields<'a>,
    faults: Vec<FieldError>,
}

impl Check<'_> {
    /// The field's value; a fault when it is there and of another type. An explicit null is absent.
    fn read<T: for<'de> Deserialize<'de>>(&mut self, field: &str) -> Option<T> {
        let raw = self.fields.get(field).filter(|raw| raw.get() != "null")?;
        self.keep(field, serde_json::from_str(raw.get()).map_err(|error| bare(&error)))
    }

    fn text(&mut self, field: &str, max_chars: usize) -> Option<String> {
        let text: String = self.read(field)?;
        let chars = text.chars().count();
        if chars > max_chars {
            self.faults.push(over(field, chars, max_chars, "characters"));
        }
        Some(text)
    }

    fn bytes(&mut self, field: &str, max_bytes: usize) -> Option<String> {
        let text: String = self.read(field)?;
        if text.len() > max_bytes {
            self.faults.push(over(field, text.len(), max_bytes, "bytes"));
        }
        Some(text)
    }

    /// A text, or an integer that stands for its digits.
    fn name(&mut self, field: &str) -> Option<String> {
        let Name(name) = self.read(field)?;
        if name.len() > NAME_MAX_BYTES {
            self.faults.push(over(field, name.len(), NAME_MAX_BYTES, "bytes"));
        }
        if name.is_empty() {
            self.faults.push(FieldError::new(field, "empty: leave it out or give it 1 to 128 bytes"));
        }
        Some(name)
    }

    fn parsed<T: FromStr<Err = String>>(&mut self, field: &str) -> Option<T> {
        let text: String = self.read(field)?;
        self.keep(field, text.parse())
    }

    fn timestamp(&mut self, field: &str) -> Option<String> {
        let text: String = self.read(field)?;
        if parse_timestamp(&text).is_none() {
            self.faults.push(FieldError::new(
                field,
                "no RFC 3339 timestamp: write it like 2026-11-21T07:45:00.000Z",
            ));
        }
        Some(text)
    }

    fn action(&mut self) -> Option<Action> {
        let action: Action = self.read("action")?;
        let label = action.label.chars().count();
        if label == 0 {
            self.faults.push(FieldError::new("action.label", "empty"));
        } else if label > ACTION_LABEL_MAX_CHARS {
            self.faults.push(over("action.label", label, ACTION_LABEL_MAX_CHARS, "characters"));
        }
        if action.url.len() > ACTION_URL_MAX_BYTES {
            self.faults.push(over("action.url", action.url.len(), ACTION_URL_MAX_BYTES, "bytes"));
        } else if !is_safe_url(&action.url) {
            self.faults.push(FieldError::new(
                "action.url",
                "only http:, https: and relative addresses, without spaces",
            ));
        }
        Some(action)
    }

    fn keep<T>(&mut self, field: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|detail| self.faults.push(FieldError::new(field, detail))).ok()
    }
}

/// The message of a JSON error without its "at line 1 column 5", which counts inside one field.
fn bare(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// Whether a link may be followed: no scheme, or one of the two of the web. Browsers drop tabs and
/// line ends inside a scheme, so any space or control character is refused.
fn is_safe_url(url: &str) -> bool {
    if url.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return false;
    }
    let head = url.split(['/', '?', '#']).next().unwrap_or_default();
    match head.split_once(':') {
        None => true,
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str) -> Vec<(String, Option<u64>)> {
        Notification::check(json)
            .expect_err(json)
            .into_iter()
            .map(|fault| (fault.field, fault.limit))
            .collect()
    }

    #[test]
    fn a_good_one_keeps_everything_and_null_is_absent() {
        let json = r#"{"id":"a","title":"T","body":"B","severity":"error","to":{"topic":"x"},"from":"f","created_at":"2026-11-21T07:45:00Z","expires_at":null,"collapse_key":"k","action":{"label":"Open","url":"/jobs/7"},"data":[9007199254740993,1.10],"traceparent":"00-0-0-00","future":1}"#;
        let one = Notification::check(json).unwrap();
        assert_eq!((one.severity, one.to), (Severity::Error, Audience::Topic("x".into())));
        assert_eq!(one.data.unwrap().get(), "[9007199254740993,1.10]");
        assert_eq!(one.expires_at, None);
    }

    #[test]
    fn every_fault_is_named_with_its_field_and_limit() {
        let name = |len: usize| "x".repeat(len);
        for (json, expected) in [
            ("{}".to_owned(), vec![("body", None)]),
            ("[]".to_owned(), vec![("", None)]),
            (r#"{"body":"a","body":"b"}"#.to_owned(), vec![("", None)]),
            (format!(r#"{{"body":"{}"}}"#, "é".repeat(4_001)), vec![("body", Some(4_000))]),
            (
                format!(r#"{{"title":"{}","id":"{}"}}"#, name(201), name(129)),
                vec![("id", Some(128)), ("title", Some(200))],
            ),
            (r#"{"body":"a","id":""}"#.to_owned(), vec![("id", None)]),
            (
                r#"{"body":"a","id":7.5,"severity":"loud","to":{"user":[]},"created_at":"today"}"#.to_owned(),
                vec![("id", None), ("severity", None), ("to", None), ("created_at", None)],
            ),
            (r#"{"body":7}"#.to_owned(), vec![("body", None)]),
            (
                r#"{"body":"a","action":{"label":"","url":"javascript:alert(1)"}}"#.to_owned(),
                vec![("action.label", None), ("action.url", None)],
            ),
            (format!(r#"{{"body":"a","data":"{}"}}"#, name(65_536)), vec![("", Some(65_536))]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(field, limit)| (field.to_owned(), limit)).collect();
            assert_eq!(faults(&json), expected, "{}", &json[..json.len().min(80)]);
        }
    }

    #[test]
    fn an_integer_is_a_name_as_far_as_numbers_are_exact() {
        let json = r#"{"id":5,"from":-7,"to":{"user":9007199254740991},"collapse_key":0,"body":"b"}"#;
        let one = Notification::check(json).unwrap();
        assert_eq!(
            (one.id.as_str(), one.from.as_deref(), one.collapse_key.as_deref()),
            ("5", Some("-7"), Some("0"))
        );
        assert_eq!(one.to, Audience::User("9007199254740991".into()));
        for name in ["9007199254740992", "-9007199254740992", "5.0", "1e3", "true", "-0"] {
            assert_eq!(
                faults(&format!(r#"{{"id":{name},"body":"b"}}"#)),
                [("id".to_owned(), None)],
                "{name}"
            );
            assert_eq!(
                faults(&format!(r#"{{"to":{{"user":{name}}},"body":"b"}}"#)),
                [("to".to_owned(), None)],
                "{name}"
            );
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_and_what_programs_read_differently_is_refused() {
        assert_eq!(Notification::check("\u{feff}{\"body\":\"b\"}").unwrap().body, "b");
        for data in [r#""\ud83c""#, "1e400", &"[".repeat(200)] {
            assert_eq!(
                faults(&format!(r#"{{"body":"b","data":{data}}}"#)),
                [(String::new(), None)],
                "{data}"
            );
        }
    }

    #[test]
    fn only_links_of_the_web_are_followed() {
        for url in
            ["/a", "a/b:c", "?q=a:b", "#x", "https://example.org", "HTTP://example.org", "//example.org/x"]
        {
            assert!(is_safe_url(url), "{url}");
        }
        for url in [
            "",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "java\tscript:alert(1)",
            " javascript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
        ] {
            assert!(!is_safe_url(url), "{url:?}");
        }
    }

    #[test]
    fn a_reader_takes_a_severity_from_the_future_for_info() {
        let one: Notification = serde_json::from_str(r#"{"id":"a","body":"b","severity":"cosmic"}"#).unwrap();
        assert_eq!(one.severity, Severity::Info);
    }

    #[test]
    fn a_reader_takes_null_for_absent() {
        let json =
            r#"{"id":"a","title":null,"body":"b","severity":null,"to":null,"created_at":null,"action":null}"#;
        let one: Notification = serde_json::from_str(json).unwrap();
        assert_eq!((one.title.as_str(), one.to), ("", Audience::Everyone));
        assert!(Notification::check(json).is_ok());
    }
}
