//! How far a message between people has come, and why not further.

use axum::Json;
use axum::extract::{Path, Request, State};
use carillon_broker::Message;
use carillon_protocol::http::{MessageProgress, MessageTrace, TraceStep};
use carillon_protocol::limits::PRESENCE_TOPIC;
use carillon_protocol::{Audience, Status, format_timestamp};

use crate::gate::Gate;
use crate::gate::principal::Principal;
use crate::people::messages::Messages;
use crate::refusal::Refusal;

/// The parts of a trace that a principal may see.
struct View {
    /// Whether it shows whole ids of connections, to which a client could publish.
    connections: bool,
    /// Whether it shows if the addressee had a connection.
    presence: bool,
}

impl View {
    fn of(gate: &Gate, principal: &Principal, message: &Message) -> Self {
        let has_key = matches!(principal, Principal::Application(_));
        let may_see = match principal {
            Principal::User(one) => {
                one.user == message.to || gate.may_read(Some(one), &format!("{PRESENCE_TOPIC}{}", message.to))
            }
            Principal::Application(_) | Principal::Anonymous => has_key,
        };
        Self { connections: has_key, presence: may_see }
    }

    /// Returns the id of a connection, or only the run of a replica with which it begins.
    fn connection(&self, id: &str) -> Option<String> {
        if self.connections {
            return Some(id.to_owned());
        }
        id.rsplit_once('-').map(|(run, _)| run.to_owned())
    }
}

/// `GET /api/notifications/{id}`: the status of a message.
pub(crate) async fn status(
    State(gate): State<Gate>,
    State(messages): State<Messages>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<MessageProgress>, Refusal> {
    let (parts, _) = request.into_parts();
    let (_, message) = messages.find(&gate, &parts, &id).await?;
    let at = message.at_ms.iter().map(|(status, at_ms)| (*status, format_timestamp(*at_ms)));
    let at = at.collect();
    let Message { from, to, status, .. } = message;
    Ok(Json(MessageProgress { id, from, to: Audience::User(to), status, at }))
}

/// `GET /api/notifications/{id}/trace`: each step of a message, and why it has not come further.
pub(crate) async fn trace(
    State(gate): State<Gate>,
    State(messages): State<Messages>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<MessageTrace>, Refusal> {
    let (parts, _) = request.into_parts();
    let (principal, message) = messages.find(&gate, &parts, &id).await?;
    let view = View::of(&gate, &principal, &message);
    let (steps, stopped) = (steps(&message, &view), stopped(&message, &view));
    Ok(Json(MessageTrace { id, status: message.status, steps, stopped }))
}

fn steps(message: &Message, view: &View) -> Vec<TraceStep> {
    let at = |status| message.at_ms.get(&status).map(|at_ms| format_timestamp(*at_ms)).unwrap_or_default();
    let step = |step: &'static str, at| TraceStep { step: step.into(), at, ..TraceStep::default() };
    let accepted = Some(message.accepted_by.clone());
    let mut steps = vec![TraceStep { replica: accepted, ..step("accepted", at(Status::None)) }];
    if message.claimed_by.is_some() {
        steps.push(TraceStep { replica: message.claimed_by.clone(), ..step("claimed", at(Status::Sent)) });
    }
    if let Some(routed) = message.routed {
        let replicas = if routed == 1 { "replica" } else { "replicas" };
        let detail = || format!("{routed} {replicas} had a connection of {} and received it", message.to);
        steps.push(TraceStep { detail: view.presence.then(detail), ..step("routed", at(Status::Sent)) });
    }
    for writing in &message.writings {
        let connection = view.connection(&writing.connection);
        let replica = Some(writing.replica.clone());
        steps.push(TraceStep { replica, connection, ..step("written", format_timestamp(writing.at_ms)) });
    }
    if message.at_ms.contains_key(&Status::Delivered) {
        let replica = message.acknowledged_by.clone();
        steps.push(TraceStep { replica, ..step("acknowledged", at(Status::Delivered)) });
    }
    if message.at_ms.contains_key(&Status::Read) {
        steps.push(step("read", at(Status::Read)));
    }
    steps
}

/// Returns where a message waits, as a sentence; `None` once it was acknowledged.
fn stopped(message: &Message, view: &View) -> Option<String> {
    let to = &message.to;
    if message.status >= Status::Delivered {
        return None;
    }
    if let Some(reason) = &message.buried {
        return Some(format!("it could not be read when it was claimed, and is in the dead list: {reason}"));
    }
    Some(match (message.claimed_by.is_some(), message.routed, message.written) {
        (false, ..) => "it waits in the list: no replica has claimed it yet".to_owned(),
        (true, _, 1..) => format!("it was written to a connection of {to}, which has not acknowledged it"),
        (true, _, 0) if !view.presence => {
            format!("it waits in the history of {to}, who has not acknowledged it")
        }
        (true, Some(1..), 0) => {
            format!(
                "a replica received it, and has not written it: the connection of {to} is slow, or was just lost"
            )
        }
        (true, ..) => format!("{to} had no connection anywhere; it waits in the history of {to}"),
    })
}
