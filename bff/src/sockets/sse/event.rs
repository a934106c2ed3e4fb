use bytes::{Buf, Bytes};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// The longest frame that is copied. hyper holds up to 16 parts that are not written yet, so a reader that reads nothing
/// holds less than 8 KiB of its own.
const COPIED_MAX_BYTES: usize = 400;

/// Formats a frame as a server-sent event. All frames but `welcome` begin with their type and, where they have one, their
/// cursor, so nothing is parsed.
pub(super) fn event_of(frame: &str) -> Bytes {
    let (kind, cursor) = type_and_cursor(frame);
    event(kind, cursor, frame)
}

/// The rest of a server-sent event, in parts. A large frame is not copied: all its readers share its text.
#[derive(Default)]
pub(super) struct Event {
    head: Option<Bytes>,
    /// The data after the head, without the end of the event.
    text: Option<Bytes>,
}

impl Event {
    /// Like [`event_of`], without a copy of a large frame. `held` is dropped once the event is written.
    pub(super) fn new<H: Clone + Send + 'static>(frame: &Utf8Bytes, held: Option<&H>) -> Self {
        if frame.len() <= COPIED_MAX_BYTES {
            return event_of(frame).into();
        }
        let (kind, cursor) = type_and_cursor(frame);
        let mut head = fields(kind, cursor, 96);
        head.push_str("data: ");
        let text = match held {
            Some(held) => Bytes::from_owner(HeldText { text: frame.clone(), _held: held.clone() }),
            None => frame.clone().into(),
        };
        Self { head: Some(head.into()), text: Some(text) }
    }
}

impl From<Bytes> for Event {
    /// An event in one part.
    fn from(event: Bytes) -> Self {
        Self { head: Some(event), text: None }
    }
}

impl Iterator for Event {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        let text = self.text.as_mut()?;
        if text.is_empty() {
            self.text = None;
            return Some(Bytes::from_static(b"\n\n"));
        }
        match text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            Some(0) => {
                text.advance(1);
                Some(Bytes::from_static(b"\ndata: "))
            }
            Some(line) => Some(text.split_to(line)),
            None => Some(std::mem::take(text)),
        }
    }
}

/// A text, with a value that is dropped when it is written.
struct HeldText<H> {
    text: Utf8Bytes,
    _held: H,
}

impl<H> AsRef<[u8]> for HeldText<H> {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Returns the type and the cursor of a frame.
fn type_and_cursor(frame: &str) -> (&str, Option<&str>) {
    let mut head = frame.splitn(9, '"');
    match (head.nth(1), head.nth(1), head.nth(1), head.nth(1)) {
        (Some("type"), Some(kind), Some("cursor"), Some(cursor)) => (kind, Some(cursor)),
        (Some("type"), Some(kind), ..) => (kind, None),
        // Not reached: every frame begins so. As plain data the frame would still be complete.
        _ => ("message", None),
    }
}

/// Formats a frame as a server-sent event (HTML Living Standard, section 9.2): `event` is the type, `id` the cursor, and
/// `data` the frame.
pub(super) fn event(kind: &str, cursor: Option<&str>, frame: &str) -> Bytes {
    let mut event = fields(kind, cursor, frame.len() + 96);
    // A producer's JSON may span lines, and each line needs its own `data`. JSON allows line ends only outside of strings,
    // so any of them may replace another.
    for line in frame.split(['\n', '\r']) {
        event.extend(["data: ", line, "\n"]);
    }
    event.push('\n');
    event.into()
}

/// Formats the fields before the data.
fn fields(kind: &str, cursor: Option<&str>, capacity: usize) -> String {
    let mut fields = String::with_capacity(capacity);
    for (field, value) in [("event", Some(kind)), ("id", cursor)] {
        if let Some(value) = value {
            fields.extend([field, ": ", value, "\n"]);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_event_has_its_type_cursor_and_data() {
        for (frame, event) in [
            (
                r#"{"type":"notification","cursor":"e.1-0","claimed_by":"b","notification":{"body":"x"}}"#,
                "event: notification\nid: e.1-0\n",
            ),
            (r#"{"type":"goodbye","reconnect_in_ms":5}"#, "event: goodbye\n"),
            (r#"{"type":"state","state":{"cursor":"x"}}"#, "event: state\n"),
        ] {
            assert_eq!(event_of(frame), format!("{event}data: {frame}\n\n"));
        }
    }

    #[test]
    fn line_ends_inside_a_producer_s_json_do_not_end_the_event() {
        let frame = "{\"type\":\"notification\",\"cursor\":\"e.1-0\",\"notification\":{\r\n\"body\":\"x\"}}";
        let event = String::from_utf8(event_of(frame).to_vec()).unwrap();
        assert_eq!(event.matches("\n\n").count(), 1, "{event}");
        let data: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert!(serde_json::from_str::<serde_json::Value>(&data.join("\n")).is_ok());
    }

    const _: () = assert!(16 * (COPIED_MAX_BYTES + 100) <= 8 * 1_024);

    #[test]
    fn a_large_frame_is_not_copied_and_holds_its_page_until_it_is_written() {
        let held = Arc::new(());
        let frame = |line: &str| {
            let data = line.repeat(COPIED_MAX_BYTES / line.len());
            Utf8Bytes::from(format!(r#"{{"type":"notification","cursor":"e.1-0","x":[{data}1]}}"#))
        };
        for line in ["1,", "1,\n\n", "1,\r\n", "\r"] {
            let frame = frame(line);
            let within = frame.as_bytes().as_ptr_range();
            for held in [None, Some(&held)] {
                let parts: Vec<_> = Event::new(&frame, held).collect();
                assert_eq!(parts.concat(), event_of(&frame), "{line:?}");
                let shared = parts.iter().filter(|part| within.contains(&part.as_ptr()));
                assert_eq!(
                    shared.map(Bytes::len).sum::<usize>(),
                    frame.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).count()
                );
            }
        }
        let parts: Vec<_> = Event::new(&frame("1,"), Some(&held)).collect();
        assert_eq!(Arc::strong_count(&held), 2);
        drop(parts);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_small_frame_is_one_part() {
        let frame = Utf8Bytes::from("{\"type\":\"state\",\n\"state\":{}}");
        let parts: Vec<_> = Event::new(&frame, None::<&()>).collect();
        assert_eq!(parts, [event_of(&frame)]);
    }
}
