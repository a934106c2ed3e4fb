use std::time::{SystemTime, UNIX_EPOCH};

use carillon_protocol::limits::ENTRY_MAX_BYTES;
use carillon_protocol::{Audience, Notification, Severity, format_timestamp, ready_to_push, without_bom};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The texts of generated notifications, for each of [`Severity::ALL`]; `#` is the number.
const STORIES: [[(&str, &str); 3]; 4] = [
    [
        ("Order # was placed", "Two items, to be picked up on Saturday morning."),
        ("Ticket # is yours", "A customer asks about the invoice of last month."),
        ("Backup # has started", "It copies what has changed since yesterday."),
    ],
    [
        ("Order # was delivered", "It was handed over at the front desk."),
        ("Build # passed", "All checks are green, and it can be released."),
        ("Backup # is complete", "It was read back and compared."),
    ],
    [
        ("Order # is running late", "The courier expects to be there 20 minutes later."),
        ("Build # is slow", "It has taken twice as long as the one before."),
        ("Backup # needs more room", "The disk will be full in about two days."),
    ],
    [
        ("Payment # was declined", "The bank asks the customer for another card."),
        ("Build # failed", "One test of the sign-in page did not pass."),
        ("Backup # was interrupted", "The connection broke; it starts again in five minutes."),
    ],
];

/// Returns the generated notification `number`, counted from 1. Severities take turns, so that a viewer shows all of them.
pub(crate) fn generated(number: u64, to: &Audience) -> Notification {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_at = format_timestamp(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
    let round =
        usize::try_from(number.saturating_sub(1) % STORIES.as_flattened().len() as u64).unwrap_or_default();
    let (turn, story) = (round % STORIES.len(), round / STORIES.len());
    let (title, body) = STORIES[turn][story];
    Notification {
        id: new_id(),
        title: title.replace('#', &number.to_string()),
        severity: Severity::ALL[turn],
        to: to.clone(),
        created_at,
        ..Notification::text(body)
    }
}

/// Returns the entry for a line of input: a JSON notification, or a text that becomes a body. A missing id is added, and
/// `to` where the line names no audience; all other bytes stay as they are.
///
/// # Errors
/// All faults of the line, in one message.
pub(crate) fn from_line(line: &str, to: &Audience) -> Result<Vec<u8>, String> {
    let line = without_bom(line);
    let json = if line.trim_ascii_start().starts_with('{') {
        addressed(line, to)
    } else {
        addressed(&serde_json::json!({ "body": line }).to_string(), to)
    };
    let (json, _) = ready_to_push(&json, new_id)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    if json.len() > ENTRY_MAX_BYTES {
        return Err(format!("{} bytes with its id, at most {ENTRY_MAX_BYTES}", json.len()));
    }
    Ok(json.into_bytes())
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// Returns `json` with `to` before its other fields, if it has none. Other values than objects stay unchanged, since they
/// are refused later.
fn addressed(json: &str, to: &Audience) -> String {
    let fields = serde_json::from_str::<Map<String, Value>>(json);
    match (fields, serde_json::to_string(to), json.split_once('{')) {
        (Ok(fields), Ok(to_json), Some((blank, rest)))
            if *to != Audience::Everyone && !fields.is_empty() && !fields.contains_key("to") =>
        {
            format!("{blank}{{\"to\":{to_json},{rest}")
        }
        _ => json.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, to: &str) -> Notification {
        let entry = from_line(line, &to.parse().unwrap()).expect(line);
        Notification::check(std::str::from_utf8(&entry).unwrap()).expect(line)
    }

    #[test]
    fn a_line_gets_an_id_and_an_audience_where_it_has_none() {
        let plain = read(" say \"hello\" ", "user:42");
        assert_eq!((plain.body.as_str(), plain.to), (" say \"hello\" ", Audience::User("42".into())));
        assert_eq!(Uuid::parse_str(&plain.id).unwrap().get_version_num(), 7);

        let json = read(r#" {"title":"T","data":[1.10]}"#, "topic:news");
        assert_eq!((json.title.as_str(), json.to), ("T", Audience::Topic("news".into())));
        assert_eq!(json.data.unwrap().get(), "[1.10]");
    }

    #[test]
    fn json_after_a_byte_order_mark_is_still_json() {
        let json = read("\u{feff}{\"id\":5,\"to\":{\"user\":42},\"body\":\"for one\"}", "everyone");
        assert_eq!((json.body.as_str(), json.to), ("for one", Audience::User("42".into())));
    }

    #[test]
    fn the_fields_of_a_line_stay_as_they_are() {
        for line in [
            r#"{"id":"own","to":{"user":"7"},"body":"b","data":1.10}"#,
            r#"{"id":"own","to":null,"body":"b"}"#,
        ] {
            assert_eq!(from_line(line, &Audience::Topic("news".into())).unwrap(), line.as_bytes());
        }
        let line = r#"{"id":"own","body":"b"}"#;
        assert_eq!(from_line(line, &Audience::Everyone).unwrap(), line.as_bytes());
    }

    #[test]
    fn all_faults_of_a_line_are_reported_at_once() {
        for (line, fault) in [
            ("{}".to_owned(), "body: a notification needs a title or a body"),
            (r#"{"body":7,"severity":"loud"}"#.to_owned(), "body: "),
            (r#"{"body":7,"severity":"loud"}"#.to_owned(), "; severity: 'loud': use info"),
            ("{nonsense".to_owned(), "not JSON"),
            ("x".repeat(4_001), "body: at most 4000 characters, this has 4001"),
            (
                format!(r#"{{"body":"b","data":"{}"}}"#, "x".repeat(65_510)),
                "bytes with its id, at most 65536",
            ),
        ] {
            let error = from_line(&line, &Audience::Everyone).expect_err(fault);
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn generated_notifications_are_valid_and_take_turns() {
        let severities: Vec<_> = (1..=5)
            .map(|number| {
                let one = generated(number, &Audience::Session("s".into()));
                let json = serde_json::to_string(&one).unwrap();
                let read = Notification::check(&json).unwrap();
                assert!(read.title.contains(&format!(" {number} ")), "{}", read.title);
                assert!(!read.body.is_empty() && !read.body.contains('#'));
                assert_eq!(read.to, Audience::Session("s".into()));
                read.severity
            })
            .collect();
        assert_eq!(severities[..4], Severity::ALL);
        assert_eq!(severities[4], Severity::Info);
        let titles: std::collections::BTreeSet<_> =
            (1..=12).map(|number| generated(number, &Audience::Everyone).title).collect();
        assert_eq!(titles.len(), 12);
    }
}
