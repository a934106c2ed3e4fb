//! `/api/users/{user}`: what other programs keep for a user and say to a user, for those without a Redis client.

use std::fmt;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use carillon_broker::limits::{RAW_MAX_BYTES, STATE_MAX_BYTES};
use carillon_broker::{Broker, State as UserState};
use carillon_protocol::limits::NAME_MAX_BYTES;
use carillon_protocol::{FieldError, read_json};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::gate::Gate;
use crate::gate::principal::{Application, Principal, Right, authentication_required};
use crate::refusal::Refusal;
use crate::request::require_json;

/// Longest request that sets a state, in bytes: JSON may write one byte as six.
const STATE_BODY_MAX_BYTES: usize = 8 * STATE_MAX_BYTES;
/// Fields that one refusal names at most.
const FAULTS_MAX: usize = 16;

/// The state of a user, for the user, and for whoever has a key.
pub(crate) async fn state_for(
    broker: &Broker,
    principal: Principal,
    user: &str,
) -> Result<UserState, Refusal> {
    match principal {
        Principal::Application(_) => {}
        Principal::User(identity) if identity.user == user => {}
        Principal::User(_) => {
            let detail = "a state is for its user, and for applications with a key";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        Principal::Anonymous => return Err(authentication_required()),
    }
    Ok(broker.state(user).await?)
}

/// Says something to a user, for an application.
pub(crate) async fn say_to(
    gate: &Gate,
    broker: &Broker,
    application: Application,
    parts: &Parts,
    user: &str,
    data: &[u8],
) -> Result<(), Refusal> {
    gate.count(application, parts, data.len())?;
    named(user)?;
    if data.len() > RAW_MAX_BYTES {
        return Err(too_much());
    }
    Ok(broker.publish_raw(user, data).await?)
}

/// `GET /api/users/{user}/state`: the fields of the state; none where there is none.
pub(crate) async fn state(
    State(gate): State<Gate>,
    State(broker): State<Broker>,
    Path(user): Path<String>,
    request: Request,
) -> Result<Json<UserState>, Refusal> {
    let (parts, _) = request.into_parts();
    named(&user)?;
    let principal = gate.principal(&parts, Right::Read).await?;
    state_for(&broker, principal, &user).await.map(Json)
}

/// `PUT /api/users/{user}/state`: these fields take the place of all that there were, and the user's
/// readers are told.
pub(crate) async fn set_state(
    State(gate): State<Gate>,
    State(broker): State<Broker>,
    Path(user): Path<String>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let (parts, body) = request.into_parts();
    gate.allow_origin(&parts)?;
    let application = gate.application(&parts, Right::SetState)?;
    named(&user)?;
    require_json(&parts, "send the fields of the state as application/json")?;
    let body = gate.read(&parts, body, STATE_BODY_MAX_BYTES, too_large).await?;
    gate.count(application, &parts, body.len())?;
    let state = fields(&body)?;
    if state.iter().map(|(field, value)| field.len() + value.len()).sum::<usize>() > STATE_MAX_BYTES {
        return Err(too_large());
    }
    broker.set_state(&user, &state).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/users/{user}/raw`: the body, whatever it is, goes to the user's connections as they are now.
pub(crate) async fn raw(
    State(gate): State<Gate>,
    State(broker): State<Broker>,
    Path(user): Path<String>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let (parts, body) = request.into_parts();
    gate.allow_origin(&parts)?;
    let application = gate.application(&parts, Right::Publish)?;
    let body = gate.read(&parts, body, RAW_MAX_BYTES, too_much).await?;
    say_to(&gate, &broker, application, &parts, &user, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn named(user: &str) -> Result<(), Refusal> {
    if (1..=NAME_MAX_BYTES).contains(&user.len()) {
        return Ok(());
    }
    let detail = format!("a name of 1 to {NAME_MAX_BYTES} bytes");
    let fault = FieldError { limit: Some(NAME_MAX_BYTES as u64), ..FieldError::new("user", detail) };
    Err(Refusal::fields("invalid user", vec![fault]))
}

/// The fields of an object, also those that come twice.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

fn fields(body: &[u8]) -> Result<UserState, Refusal> {
    let fault = |faults| Refusal::fields("invalid state", faults);
    let Fields(fields) = read_json(body)
        .map_err(|error| fault(vec![FieldError::new("", format!("an object of texts: {error}"))]))?;
    let mut faults = Vec::new();
    let mut state = UserState::new();
    for (field, value) in fields {
        match value {
            Value::String(_) if state.contains_key(&field) => {
                faults
                    .push(FieldError::new(&field, "it comes twice, and programs differ on which one counts"));
            }
            Value::String(text) => {
                state.insert(field, text);
            }
            _ => faults.push(FieldError::new(&field, "a text, since Redis keeps nothing else")),
        }
    }
    faults.truncate(FAULTS_MAX);
    if faults.is_empty() { Ok(state) } else { Err(fault(faults)) }
}

fn too_large() -> Refusal {
    let detail = format!("the names and values of a state have at most {STATE_MAX_BYTES} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload too large", detail)
}

fn too_much() -> Refusal {
    let detail = format!("at most {RAW_MAX_BYTES} bytes are said to a user at once");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload too large", detail)
}
