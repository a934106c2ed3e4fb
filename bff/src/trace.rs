//! How far a message between people has come, and why not further.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Request, State};
use carillon_broker::Message;
use carillon_protocol::{Audience, Status, format_timestamp};

use crate::app::App;
use crate::reply::Refusal;

/// How far a message between people has come.
#[derive(serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Progress {
    id: String,
    /// Who sent it.
    from: String,
    /// Whom it is for.
    to: Audience,
    status: Status,
    /// When it came to each status, RFC 3339.
    at: BTreeMap<&'static str, String>,
}

/// Each step of a message.
#[derive(serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(extend("required" = ["id", "status", "steps", "stopped"])))]
pub(crate) struct Trace {
    id: String,
    status: Status,
    steps: Vec<Step>,
    /// Why it has come no further, in a sentence; nothing once it was acknowledged.
    stopped: Option<String>,
}

/// One step of a message.
#[derive(Default, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Step {
    /// `accepted`, `claimed`, `routed`, `written`, `acknowledged` or `read`.
    step: &'static str,
    /// When, RFC 3339.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    at: String,
    /// The replica that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    replica: Option<String>,
    /// The connection that it was written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    /// More, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// `GET /api/notifications/{id}`: how far a message has come.
pub(crate) async fn status(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Progress>, Refusal> {
    let (parts, _) = request.into_parts();
    let message = app.message_for(&parts, &id).await?;
    let at = message.at_ms.iter().map(|(status, at_ms)| (status.as_str(), format_timestamp(*at_ms)));
    let at = at.collect();
    let Message { from, to, status, .. } = message;
    Ok(Json(Progress { id, from, to: Audience::User(to), status, at }))
}

/// `GET /api/notifications/{id}/trace`: each step of a message, and why it has not come further.
pub(crate) async fn trace(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Trace>, Refusal> {
    let (parts, _) = request.into_parts();
    let message = app.message_for(&parts, &id).await?;
    Ok(Json(Trace { id, status: message.status, steps: steps(&message), stopped: stopped(&message) }))
}

fn steps(message: &Message) -> Vec<Step> {
    let at = |status| message.at_ms.get(&status).map(|at_ms| format_timestamp(*at_ms)).unwrap_or_default();
    let step = |step, at| Step { step, at, ..Step::default() };
    let accepted = Some(message.accepted_by.clone());
    let mut steps = vec![Step { replica: accepted, ..step("accepted", at(Status::None)) }];
    if message.claimed_by.is_some() {
        steps.push(Step { replica: message.claimed_by.clone(), ..step("claimed", at(Status::Sent)) });
    }
    if let Some(routed) = message.routed {
        let detail = format!("{routed} replicas had a connection of {} and heard of it", message.to);
        steps.push(Step { detail: Some(detail), ..step("routed", at(Status::Sent)) });
    }
    for writing in &message.writings {
        let connection = Some(writing.connection.clone());
        let replica = Some(writing.replica.clone());
        steps.push(Step { replica, connection, ..step("written", format_timestamp(writing.at_ms)) });
    }
    if message.at_ms.contains_key(&Status::Delivered) {
        let replica = message.acknowledged_by.clone();
        steps.push(Step { replica, ..step("acknowledged", at(Status::Delivered)) });
    }
    if message.at_ms.contains_key(&Status::Read) {
        steps.push(step("read", at(Status::Read)));
    }
    steps
}

/// Where a message waits, in words; nothing once it was acknowledged.
fn stopped(message: &Message) -> Option<String> {
    let to = &message.to;
    if message.status >= Status::Delivered {
        return None;
    }
    Some(match (message.claimed_by.is_some(), message.routed, message.written) {
        (false, ..) => "it waits in the list: no replica has claimed it yet".to_owned(),
        (true, _, 1..) => format!("it was written to a connection of {to}, which has not acknowledged it"),
        (true, Some(1..), 0) => {
            format!(
                "a replica heard of it, and has not written it: the connection of {to} is slow, or was just lost"
            )
        }
        (true, ..) => format!("{to} had no connection anywhere; it waits in the history of {to}"),
    })
}
