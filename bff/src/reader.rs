use axum::http::request::Parts;
use carillon_protocol::{Audience, Cursor, FieldError};

use crate::feed::Reader;
use crate::reply::Refusal;

/// Who reads: the one place that turns a request into audiences. Everyone may read what is for
/// everyone; proof of being a user is added here.
pub(crate) fn identify(parts: &Parts) -> Result<Reader, Refusal> {
    // A browser's EventSource repeats its first URL and names its last event in a header, which is newer.
    let last_event = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let since = match last_event {
        Some(cursor) => Some(parse_cursor("Last-Event-ID", cursor)?),
        None => query(parts, "since").map(|cursor| parse_cursor("since", &cursor)).transpose()?,
    };
    let id = uuid::Uuid::new_v4().as_u64_pair().1;
    Ok(Reader { id, audiences: [Audience::Everyone].into(), since })
}

fn parse_cursor(field: &str, text: &str) -> Result<Cursor, Refusal> {
    text.parse().map_err(|error: carillon_protocol::CursorError| {
        Refusal::fields("the cursor cannot be read", vec![FieldError::new(field, error.to_string())])
    })
}

/// The value of a query parameter; an empty one is absent.
pub(crate) fn query(parts: &Parts, name: &str) -> Option<String> {
    let pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value.to_owned()).next()
}
