use std::time::{SystemTime, UNIX_EPOCH};

use carillon_protocol::limits::ENTRY_MAX_BYTES;
use carillon_protocol::{Audience, Notification, Severity, format_timestamp, ready_to_push};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The made-up notification `number`, counted from 1. Severities take turns, so that a viewer looks alive.
pub(crate) fn made_up(number: u64, to: &Audience) -> Notification {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created_at = format_timestamp(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
    let turn = usize::try_from(number.saturating_sub(1) % Severity::ALL.len() as u64).unwrap_or_default();
    Notification {
        id: new_id(),
        title: format!("Notification {number}"),
        severity: Severity::ALL[turn],
        to: to.clone(),
        created_at: created_at.clone(),
        ..Notification::text(format!("Notification at {created_at}"))
    }
}

/// The list entry for a line of input: a JSON notification, or a text that becomes a body. What is
/// missing is given, an id and, where the line names nobody, `to`; all other bytes stay as they are.
///
/// # Errors
/// Everything that is wrong with the line, in one.
pub(crate) fn from_line(line: &str, to: &Audience) -> Result<Vec<u8>, String> {
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

/// `json` with `to` in front of its other fields, when it has none. What is no object is left alone:
/// it is about to be refused.
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
    fn what_a_line_says_itself_stays_as_it_is() {
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
    fn everything_wrong_with_a_line_is_said_at_once() {
        for (line, fault) in [
            ("{}".to_owned(), "body: a notification needs a title or a body"),
            (r#"{"body":7,"severity":"loud"}"#.to_owned(), "body: "),
            (r#"{"body":7,"severity":"loud"}"#.to_owned(), "; severity: 'loud' is none of"),
            ("{nonsense".to_owned(), "not a notification"),
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
    fn made_up_ones_are_good_and_take_turns() {
        let severities: Vec<_> = (1..=5)
            .map(|number| {
                let one = made_up(number, &Audience::Session("s".into()));
                let json = serde_json::to_string(&one).unwrap();
                let read = Notification::check(&json).unwrap();
                assert_eq!(read.title, format!("Notification {number}"));
                assert_eq!(read.body, format!("Notification at {}", read.created_at));
                assert_eq!(read.to, Audience::Session("s".into()));
                read.severity
            })
            .collect();
        assert_eq!(severities[..4], Severity::ALL);
        assert_eq!(severities[4], Severity::Info);
    }
}
