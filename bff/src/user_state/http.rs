//! `/api/users/{user}`: the state and raw payloads that other programs keep for a user and publish to a user, for programs
//! without a Redis client.

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

/// Maximum bytes of a request that sets a state: JSON may write one byte as six.
const STATE_BODY_MAX_BYTES: usize = 8 * STATE_MAX_BYTES;
/// Maximum fields that one refusal names.
const FAULTS_MAX: usize = 16;

/// Returns the state of a user, to the user and to applications with a key.
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

/// Publishes a raw payload to a user, for an application.
pub(crate) async fn publish_to(
    gate: &Gate,
    broker: &Broker,
    application: Application,
    parts: &Parts,
    user: &str,
    data: &[u8],
) -> Result<(), Refusal> {
    gate.count(application, parts, data.len())?;
    check_user(user)?;
    if data.len() > RAW_MAX_BYTES {
        return Err(payload_too_large());
    }
    Ok(broker.publish_raw(user, data).await?)
}

/// `GET /api/users/{user}/state`: the fields of the state, an empty object without a state.
pub(crate) async fn state(
    State(gate): State<Gate>,
    State(broker): State<Broker>,
    Path(user): Path<String>,
    request: Request,
) -> Result<Json<UserState>, Refusal> {
    let (parts, _) = request.into_parts();
    check_user(&user)?;
    let principal = gate.principal(&parts, Right::Read).await?;
    state_for(&broker, principal, &user).await.map(Json)
}

/// `PUT /api/users/{user}/state`: replaces the whole state, and sends it to the user's readers.
pub(crate) async fn set_state(
    State(gate): State<Gate>,
    State(broker): State<Broker>,
    Path(user): Path<String>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let (parts, body) = request.into_parts();
    gate.allow_origin(&parts)?;
    let application = gate.application(&parts, Right::SetState)?;
    check_user(&user)?;
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

/// `POST /api/users/{user}/raw`: sends the body, whatever it is, to the user's current connections.
pub(crate) async fn raw(
    State(gate): State<Gate>,
    State(broker): State<Broker>,
    Path(user): Path<String>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let (parts, body) = request.into_parts();
    gate.allow_origin(&parts)?;
    let application = gate.application(&parts, Right::Publish)?;
    let body = gate.read(&parts, body, RAW_MAX_BYTES, payload_too_large).await?;
    publish_to(&gate, &broker, application, &parts, &user, &body).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn check_user(user: &str) -> Result<(), Refusal> {
    if (1..=NAME_MAX_BYTES).contains(&user.len()) {
        return Ok(());
    }
    let detail = format!("a name of 1 to {NAME_MAX_BYTES} bytes");
    let fault = FieldError { limit: Some(NAME_MAX_BYTES as u64), ..FieldError::new("user", detail) };
    Err(Refusal::fields("invalid user", vec![fault]))
}

/// The fields of an object, with those that are repeated.
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
    let Fields(fields) = read_json(body).map_err(|error| {
        fault(vec![FieldError::new("", format!("must be a JSON object of strings: {error}"))])
    })?;
    let mut faults = Vec::new();
    let mut state = UserState::new();
    for (field, value) in fields {
        match value {
            Value::String(_) if state.contains_key(&field) => {
                faults.push(FieldError::new(
                    &field,
                    "the field is repeated, and programs differ on which value counts",
                ));
            }
            Value::String(text) => {
                state.insert(field, text);
            }
            _ => faults.push(FieldError::new(&field, "must be a string, since Redis stores nothing else")),
        }
    }
    faults.truncate(FAULTS_MAX);
    if faults.is_empty() { Ok(state) } else { Err(fault(faults)) }
}

fn too_large() -> Refusal {
    let detail = format!("the names and values of a state have at most {STATE_MAX_BYTES} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload too large", detail)
}

fn payload_too_large() -> Refusal {
    let detail = format!("a payload to a user has at most {RAW_MAX_BYTES} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload too large", detail)
}
