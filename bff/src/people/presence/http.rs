use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use carillon_broker::{Broker, Presence};
use carillon_protocol::http::{PresenceList, UserPresence};
use carillon_protocol::limits::{NAME_MAX_BYTES, PRESENCE_TOPIC};
use carillon_protocol::{FieldError, format_timestamp};

use crate::gate::Gate;
use crate::gate::caller::TOPIC_REFUSED;
use crate::gate::principal::{Principal, Right};
use crate::refusal::Refusal;
use crate::request::queries;

/// Maximum users of one request.
const USERS_MAX: usize = 100;

/// `GET /api/presence/{user}`: whether a user is online.
pub(crate) async fn one(
    State(gate): State<Gate>,
    State(broker): State<Broker>,
    Path(user): Path<String>,
    request: Request,
) -> Result<Json<UserPresence>, Refusal> {
    let (parts, _) = request.into_parts();
    let presence = presence(&gate, &broker, &parts, &[user]).await?.pop();
    presence.map(Json).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "user not found", ""))
}

/// `GET /api/presence?user=&user=`: the same of several users, in their order.
pub(crate) async fn many(
    State(gate): State<Gate>,
    State(broker): State<Broker>,
    request: Request,
) -> Result<Json<PresenceList>, Refusal> {
    let (parts, _) = request.into_parts();
    let users: Vec<_> = queries(&parts, "user").collect();
    Ok(Json(PresenceList { users: presence(&gate, &broker, &parts, &users).await? }))
}

async fn presence(
    gate: &Gate,
    broker: &Broker,
    parts: &Parts,
    users: &[String],
) -> Result<Vec<UserPresence>, Refusal> {
    let fault = |detail: String, limit: usize| {
        let fault = FieldError { limit: Some(limit as u64), ..FieldError::new("user", detail) };
        Err(Refusal::fields("invalid users", vec![fault]))
    };
    if !(1..=USERS_MAX).contains(&users.len()) {
        return fault(format!("{} users; name 1 to {USERS_MAX}", users.len()), USERS_MAX);
    }
    if users.iter().any(|user| !(1..=NAME_MAX_BYTES).contains(&user.len())) {
        return fault(format!("a user has 1 to {NAME_MAX_BYTES} bytes"), NAME_MAX_BYTES);
    }
    may_see(gate, parts, users).await?;
    Ok(broker.presence(users).await?.iter().map(to_body).collect())
}

/// Checks the right to see users: applications with a key see all users; others see those whose topic `presence:<user>` they
/// may read.
async fn may_see(gate: &Gate, parts: &Parts, users: &[String]) -> Result<(), Refusal> {
    let identity = match gate.principal(parts, Right::Read).await? {
        Principal::Application(_) => return Ok(()),
        Principal::User(identity) => Some(identity),
        Principal::Anonymous => None,
    };
    let may_see = |user: &String| gate.may_read(identity.as_ref(), &format!("{PRESENCE_TOPIC}{user}"));
    if users.iter().all(may_see) {
        return Ok(());
    }
    match identity {
        Some(_) => {
            let detail = format!("the presence of a user is the topic presence:<user>; {TOPIC_REFUSED}");
            Err(Refusal::new(StatusCode::FORBIDDEN, "presence not allowed", detail))
        }
        None => {
            let detail =
                "send a token whose `topics` cover presence:<user>, or a key, as Authorization: Bearer";
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "authentication required", detail))
        }
    }
}

/// A user counts as online until the leave is announced, so that this response and the frames of readers agree.
fn to_body(presence: &Presence) -> UserPresence {
    let Presence { user, connections, since_ms } = presence;
    let (online, since) = (since_ms.is_some(), since_ms.map(format_timestamp));
    UserPresence { user: user.clone(), online, connections: *connections, since }
}
