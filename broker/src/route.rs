//! What claim.lua finds out about an entry before it takes it, for the engine without Lua. It is as
//! lenient as the script: the strict reading comes after the claim, the same for both engines.

use carillon_protocol::limits::{ENTRY_MAX_BYTES, NAME_MAX_BYTES};
use carillon_protocol::{Audience, Refusal, RefusalReason};
use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) struct Route {
    pub(crate) audience: Audience,
    /// `from` and `id` in one text, where there is an id.
    pub(crate) id: Option<String>,
    /// What may be a message of the ledger.
    pub(crate) sent: Option<Sent>,
}

/// A notification to one user that somebody sends in their own name.
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

pub(crate) fn route(raw: &[u8]) -> Result<Route, Refusal> {
    if raw.len() > ENTRY_MAX_BYTES {
        return Err(refuse(
            RefusalReason::TooLarge,
            format!("{} bytes, at most {ENTRY_MAX_BYTES}", raw.len()),
        ));
    }
    match raw.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(refuse(RefusalReason::Empty, "an entry of blanks")),
        Some(b'{') => {
            let json: Map<String, Value> =
                serde_json::from_slice(raw).map_err(|error| invalid(format!("not JSON: {error}")))?;
            route_json(&json)
        }
        Some(_) => Ok(Route { audience: Audience::Everyone, id: None, sent: None }),
    }
}

fn route_json(json: &Map<String, Value>) -> Result<Route, Refusal> {
    let id = name(json, "id")?;
    let from = name(json, "from")?;
    let text = |field: &str| json.get(field).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if !text("title") && !text("body") {
        return Err(invalid("a notification needs a title or a body"));
    }
    let audience = match json.get("to") {
        None | Some(Value::Null) => Audience::Everyone,
        Some(to) => Audience::deserialize(to).map_err(|error| invalid(format!("to: {error}")))?,
    };
    let sent = match (id, from, &audience) {
        (Some(id), Some(from), Audience::User(to)) => {
            Some(Sent { id: id.to_owned(), from: from.to_owned(), to: to.clone() })
        }
        _ => None,
    };
    let from = from.unwrap_or_default();
    // With its length, so that no two pairs look the same, whatever is in a name.
    let id = id.map(|id| remembered(from, id));
    Ok(Route { audience, id, sent })
}

fn name<'a>(json: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, Refusal> {
    match json.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if (1..=NAME_MAX_BYTES).contains(&name.len()) => Ok(Some(name)),
        Some(_) => Err(invalid(format!("{field}: not a text of 1 to {NAME_MAX_BYTES} bytes"))),
    }
}

/// How a pair is kept to be known again. With a length, so that no two pairs look the same, whatever is in a
/// name.
pub(crate) fn remembered(from: &str, id: &str) -> String {
    format!("{}:{from}{id}", from.len())
}

fn invalid(detail: impl Into<String>) -> Refusal {
    refuse(RefusalReason::Invalid, detail)
}

fn refuse(reason: RefusalReason, detail: impl Into<String>) -> Refusal {
    Refusal { reason, detail: detail.into() }
}
