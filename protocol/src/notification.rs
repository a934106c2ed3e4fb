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

/// The severity of a notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Information.
    #[default]
    Info,
    /// Something went well.
    Success,
    /// Something may need attention.
    Warning,
    /// Something failed.
    Error,
}

impl Severity {
    /// All of them, in rising order.
    pub const ALL: [Self; 4] = [Self::Info, Self::Success, Self::Warning, Self::Error];

    /// Returns the severity as a word, on the wire.
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
        known.ok_or_else(|| format!("'{text}': use info, success, warning or error"))
    }
}

impl<'de> Deserialize<'de> for Severity {
    /// Parses an unknown severity, of a newer server, as `info`; [`Notification::check`] is strict.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.parse().unwrap_or_default())
    }
}

/// A link that a notification offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Action {
    /// The label of the button.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = ACTION_LABEL_MAX_CHARS)))]
    pub label: String,
    /// The address: `http:`, `https:` or relative.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = ACTION_URL_MAX_BYTES)))]
    pub url: String,
}

impl Action {
    /// Whether the address is `http:`, `https:` or relative. The claim has checked it already; a reader checks it again
    /// before it makes a link.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        is_safe_url(&self.url)
    }
}

/// A notification, as its fields are parsed. [`crate::Entry`] keeps its original bytes, because parsing and writing them
/// again would lose unknown fields and the exact form of numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Notification {
    /// The id of the notification, by which a repeated push is dropped. The claim adds one where it is absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", length(min = 1, max = NAME_MAX_BYTES)))]
    pub id: String,
    /// The title. A notification has a title or a body.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", length(max = TITLE_MAX_CHARS)))]
    pub title: String,
    /// The text.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", length(max = BODY_MAX_CHARS)))]
    pub body: String,
    /// The severity.
    #[serde(default, deserialize_with = "nullable")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Severity>"))]
    pub severity: Severity,
    /// The audience.
    #[serde(default, deserialize_with = "nullable")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Audience>"))]
    pub to: Audience,
    /// The sender; ids are unique for each sender only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))]
    pub from: Option<String>,
    /// When it was created, RFC 3339. The claim adds it where it is absent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub created_at: String,
    /// When it expires, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub expires_at: Option<String>,
    /// A later notification with the same key replaces this one on the screen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = NAME_MAX_BYTES)))]
    pub collapse_key: Option<String>,
    /// A link that it offers.
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

/// An explicit null counts as an absent field.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Notification {
    /// Returns a notification for everyone with only a body.
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

    /// Parses a JSON object strictly, as the API and the claim do.
    ///
    /// # Errors
    /// All faults that were found, each with its field and, if one was exceeded, the limit.
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

    /// Returns the range of the value of `field` in `json`; `None` where the field is absent.
    pub(crate) fn span(json: &str, field: &str) -> Option<Range<usize>> {
        let fields: Fields<'_> = serde_json::from_str(json).ok()?;
        let value = fields.get(field)?.get();
        // The value borrows from `json`, so the distance of the two is its place.
        let start = value.as_ptr().addr() - json.as_ptr().addr();
        Some(start..start + value.len())
    }

    /// When it expires, in milliseconds since 1970.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at.as_deref().and_then(parse_timestamp)
    }
}

fn over(field: &str, found: usize, limit: usize, unit: &str) -> FieldError {
    let detail = format!("at most {limit} {unit}, this has {found}");
    FieldError { field: field.to_owned(), detail, limit: u64::try_from(limit).ok() }
}

/// The fields of one JSON object with their own bytes. A repeated name is an error, since parsers differ on which value
/// counts.
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
                        return Err(de::Error::custom(format!("'{name}' is repeated")));
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
    /// Returns the field's value, and adds a fault when it has another type. An explicit null counts as absent.
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

    /// Reads a string, or an integer that stands for its digits.
    fn name(&mut self, field: &str) -> Option<String> {
        let Name(name) = self.read(field)?;
        if name.len() > NAME_MAX_BYTES {
            self.faults.push(over(field, name.len(), NAME_MAX_BYTES, "bytes"));
        }
        if name.is_empty() {
            self.faults.push(FieldError::new(field, "empty: omit it or use 1 to 128 bytes"));
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
                "not an RFC 3339 timestamp: write it like 2026-11-21T07:45:00.000Z",
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

/// Returns the message of a JSON error without its "at line 1 column 5", which counts inside one field.
fn bare(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// Whether an address is safe to link to: no scheme, or http or https. Browsers ignore tabs and line ends inside a scheme,
/// so any space or control character is refused.
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
    fn a_valid_notification_keeps_all_fields_and_null_is_absent() {
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
    fn an_exact_integer_is_a_name() {
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
    fn a_byte_order_mark_is_ignored_and_ambiguous_json_is_refused() {
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
    fn only_web_links_are_safe() {
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
    fn an_unknown_severity_is_read_as_info() {
        let one: Notification = serde_json::from_str(r#"{"id":"a","body":"b","severity":"cosmic"}"#).unwrap();
        assert_eq!(one.severity, Severity::Info);
    }

    #[test]
    fn null_is_read_as_absent() {
        let json =
            r#"{"id":"a","title":null,"body":"b","severity":null,"to":null,"created_at":null,"action":null}"#;
        let one: Notification = serde_json::from_str(json).unwrap();
        assert_eq!((one.title.as_str(), one.to), ("", Audience::Everyone));
        assert!(Notification::check(json).is_ok());
    }
}
