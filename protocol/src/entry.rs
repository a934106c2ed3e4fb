use std::borrow::Cow;
use std::fmt;

use crate::limits::ENTRY_MAX_BYTES;
use crate::{Audience, FieldError, Notification, Position, format_timestamp, without_bom};

/// A claimed entry, parsed.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The notification's id, its own or a generated one.
    pub id: String,
    /// The sender.
    pub from: Option<String>,
    /// The audience.
    pub audience: Audience,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
    /// The notification as a JSON object: the entry's own bytes with `id` and `created_at` added where they were missing, or
    /// a notification made from a plain text.
    pub json: String,
}

/// Why an entry goes to the dead list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalReason {
    /// The entry is blank.
    Empty,
    /// The entry is larger than [`ENTRY_MAX_BYTES`].
    TooLarge,
    /// The entry is not UTF-8.
    NotText,
    /// The entry starts with `{` and is not a notification.
    Invalid,
}

impl RefusalReason {
    /// Returns the reason as a word, for the dead list and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::NotText => "not_text",
            Self::Invalid => "invalid",
        }
    }
}

/// Why an entry goes to the dead list, with a detail for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: RefusalReason,
    /// The detail.
    pub detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}

impl Entry {
    /// Parses the bytes of an entry at `position`. The same bytes at the same position give the same result on every
    /// replica.
    ///
    /// # Errors
    /// When the entry is empty, too large, not UTF-8, or an object that is not a notification.
    pub fn read(raw: &[u8], position: Position) -> Result<Self, Refusal> {
        if raw.len() > ENTRY_MAX_BYTES {
            return Err(refuse(
                RefusalReason::TooLarge,
                format!("{} bytes, at most {ENTRY_MAX_BYTES}", raw.len()),
            ));
        }
        if UTF_16_MARKS.iter().any(|mark| raw.starts_with(mark)) {
            return Err(refuse(RefusalReason::NotText, "UTF-16: write it as UTF-8".to_owned()));
        }
        let text =
            std::str::from_utf8(raw).map_err(|error| refuse(RefusalReason::NotText, error.to_string()))?;
        let text = without_bom(text);
        match text.trim_ascii_start().bytes().next() {
            None => Err(refuse(RefusalReason::Empty, "a blank entry".to_owned())),
            Some(b'{') => Self::from_json(text, position),
            Some(_) => Self::from_json(&plain(text), position),
        }
    }

    fn from_json(json: &str, position: Position) -> Result<Self, Refusal> {
        let notification = Notification::check(json).map_err(|faults| {
            let detail: Vec<_> = faults.iter().map(ToString::to_string).collect();
            refuse(RefusalReason::Invalid, detail.join("; "))
        })?;
        let id = if notification.id.is_empty() { position.to_string() } else { notification.id.clone() };
        Ok(Self {
            json: complete(json, &notification, &id, position.ms).into_owned(),
            expires_at_ms: notification.expires_at_ms(),
            from: notification.from,
            audience: notification.to,
            id,
        })
    }
}

fn refuse(reason: RefusalReason, detail: String) -> Refusal {
    Refusal { reason, detail }
}

/// Returns the notification of a plain text.
fn plain(text: &str) -> String {
    serde_json::json!({ "body": text }).to_string()
}

/// The byte order marks of UTF-16, which Windows shells write.
const UTF_16_MARKS: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// Adds `id` and `created_at` where they are missing or null, and replaces names that are integers by strings, so that every
/// reader finds the same type. All other bytes stay as they are.
fn complete<'a>(json: &'a str, notification: &Notification, id: &str, created_at_ms: u64) -> Cow<'a, str> {
    let mut json = Cow::Borrowed(json);
    if notification.created_at.is_empty() {
        json = give(&json, "created_at", &format_timestamp(created_at_ms)).into();
    }
    if notification.id.is_empty() {
        json = give(&json, "id", id).into();
    }
    let texts = [
        ("id", Some(&notification.id)),
        ("from", notification.from.as_ref()),
        ("collapse_key", notification.collapse_key.as_ref()),
    ];
    for (field, name) in texts {
        if let (Some(name), true) = (name, is_integer(&json, field)) {
            json = give(&json, field, name).into();
        }
    }
    if let (Some(name), Some(to)) = (notification.to.name(), Notification::span(&json, "to"))
        && json[to.clone()].rsplit_once(':').is_some_and(|(_, value)| is_number(value.trim_start()))
    {
        let named = serde_json::json!({ notification.to.kind(): name });
        json = format!("{}{named}{}", &json[..to.start], &json[to.end..]).into();
    }
    json
}

fn is_integer(json: &str, field: &str) -> bool {
    Notification::span(json, field).is_some_and(|span| is_number(&json[span]))
}

/// Whether a JSON value is a number, by its first byte. (The text after the last colon inside a string ends in a quotation
/// mark, so it cannot be a number in valid JSON.)
fn is_number(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && !json.contains('"')
}

/// Returns `json` with `field` set to the string `value`: in place of its null, or before the other fields.
fn give(json: &str, field: &str, value: &str) -> String {
    let value = serde_json::Value::from(value);
    if let Some(null) = Notification::span(json, field) {
        return format!("{}{value}{}", &json[..null.start], &json[null.end..]);
    }
    let start = json.find('{').map_or(0, |at| at + 1);
    format!("{}\"{field}\":{value},{}", &json[..start], &json[start..])
}

/// Prepares a notification that a user sends for the list: `from` is the user, and a missing `id` is generated if `new_id`
/// is given.
///
/// # Errors
/// All faults that were found; a `from` of another user; a missing id.
pub fn sent_by(
    json: &str,
    user: &str,
    new_id: Option<String>,
) -> Result<(String, Notification), Vec<FieldError>> {
    let json = without_bom(json);
    let mut notification = Notification::check(json)?;
    let mut json = Cow::Borrowed(json);
    match notification.from.as_deref() {
        None => json = give(&json, "from", user).into(),
        Some(from) if from == user => {}
        Some(_) => {
            let detail = "must be the signed-in user, or absent".to_owned();
            return Err(vec![FieldError::new("from", detail)]);
        }
    }
    if notification.id.is_empty() {
        let Some(id) = new_id else {
            let detail = "give each message its own id, which makes a repeated send harmless".to_owned();
            return Err(vec![FieldError::new("id", detail)]);
        };
        json = give(&json, "id", &id).into();
        notification.id = id;
    }
    notification.from = Some(user.to_owned());
    Ok((json.into_owned(), notification))
}

/// Prepares a notification of a request for the list: a missing `id` is generated.
///
/// # Errors
/// Every fault that was found.
pub fn ready_to_push(
    json: &str,
    id: impl FnOnce() -> String,
) -> Result<(String, Notification), Vec<FieldError>> {
    let json = without_bom(json);
    let mut notification = Notification::check(json)?;
    if !notification.id.is_empty() {
        return Ok((json.to_owned(), notification));
    }
    notification.id = id();
    Ok((give(json, "id", &notification.id), notification))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { ms: 1_795_247_100_123, n: 2 };

    fn read(raw: &str) -> Entry {
        Entry::read(raw.as_bytes(), AT).expect(raw)
    }

    fn reason(raw: &[u8]) -> RefusalReason {
        Entry::read(raw, AT).expect_err("refused").reason
    }

    #[test]
    fn the_bytes_of_a_complete_entry_are_kept() {
        let raw =
            r#" {"id":"a","body":"b","created_at":"2026-11-21T07:45:00Z","data":[1.10,9007199254740993,[]]}"#;
        assert_eq!(read(raw).json, raw);
    }

    #[test]
    fn missing_fields_are_added_and_no_other_byte_changes() {
        let given =
            r#"{"id":"1795247100123-2","created_at":"2026-11-21T07:45:00.123Z","body":"b","data":1.10}"#;
        assert_eq!(read(r#"{"body":"b","data":1.10}"#).json, given);
        let nulls = r#"{"id": null,"body":"b","created_at":null,"title":null}"#;
        let filled =
            r#"{"id": "1795247100123-2","body":"b","created_at":"2026-11-21T07:45:00.123Z","title":null}"#;
        assert_eq!(read(nulls).json, filled);
    }

    #[test]
    fn names_that_are_integers_become_strings() {
        let at = r#""created_at":"2026-11-21T07:45:00Z""#;
        let read = |fields: &str| read(&format!("{{{fields},\"body\":\"b\",{at}}}")).json;
        assert_eq!(
            read(r#""id":5,"from": -7,"to":{"user": 42 },"collapse_key":0"#),
            format!(r#"{{"id":"5","from": "-7","to":{{"user":"42"}},"collapse_key":"0","body":"b",{at}}}"#)
        );
        for kept in [r#""id":"5","to":{"user":"a:1"}"#, r#""id":"x","to":{"topic":"1"}"#] {
            assert_eq!(read(kept), format!(r#"{{{kept},"body":"b",{at}}}"#));
        }
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text_and_utf_16_is_refused() {
        assert_eq!(read("\u{feff}hello").json, read("hello").json);
        assert_eq!(read("\u{feff}{\"id\":\"a\",\"body\":\"b\"}").id, "a");
        for mark in [b"\xff\xfe{\0", b"\xfe\xff\0{"] {
            assert!(Entry::read(mark, AT).unwrap_err().detail.contains("UTF-8"));
        }
    }

    #[test]
    fn a_plain_text_is_a_body_for_everyone() {
        let entry = read("say \"hello\"");
        assert_eq!(entry.audience, Audience::Everyone);
        let notification: Notification = serde_json::from_str(&entry.json).unwrap();
        assert_eq!(
            (notification.body.as_str(), notification.id.as_str()),
            ("say \"hello\"", "1795247100123-2")
        );
    }

    #[test]
    fn an_unreadable_entry_has_a_reason() {
        assert_eq!(reason(b""), RefusalReason::Empty);
        assert_eq!(reason(b" \r\n\t"), RefusalReason::Empty);
        assert_eq!(reason(&[b'x'; ENTRY_MAX_BYTES + 1]), RefusalReason::TooLarge);
        assert_eq!(reason(b"\xff"), RefusalReason::NotText);
        assert_eq!(reason(b"{"), RefusalReason::Invalid);
        assert_eq!(reason(br#"{"title":""}"#), RefusalReason::Invalid);
        assert_eq!(reason("x".repeat(4_001).as_bytes()), RefusalReason::Invalid);
    }

    #[test]
    fn a_request_gets_an_id_unless_it_has_one() {
        let (json, notification) = ready_to_push(r#"{"body":"b"}"#, || "given".to_owned()).unwrap();
        assert_eq!((json.as_str(), notification.id.as_str()), (r#"{"id":"given","body":"b"}"#, "given"));
        let (json, _) = ready_to_push(r#"{"id":"own","body":"b"}"#, || "given".to_owned()).unwrap();
        assert_eq!(json, r#"{"id":"own","body":"b"}"#);
    }
}
