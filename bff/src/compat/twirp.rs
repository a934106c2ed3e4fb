//! `POST /twirp/notify.NotifyService/{Auth,Publish,State}`: notify's service for Twirp clients, and the methods that its
//! README promises. The messages are in docs/notify.proto.

mod wire;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carillon_auth::identity::cookie;
use carillon_broker::Broker;
use carillon_broker::limits::RAW_MAX_BYTES;
use carillon_service::filled;

pub use wire::{
    AuthRequest, AuthResponse, Encoding, PublishRequest, PublishResponse, StateRequest, StateResponse,
    TwirpError,
};

use crate::compat::notify::unprefixed;
use crate::gate::Gate;
use crate::gate::principal::{Principal, Right, authentication_required};
use crate::refusal::Refusal;
use crate::user_state::http::{check_user, publish_to, state_for};

/// The path before the name of a method.
const SERVICE: &str = "/twirp/notify.NotifyService/";
/// Maximum bytes of a request that publishes: the message with its envelope.
const PUBLISH_MAX_BYTES: usize = RAW_MAX_BYTES + 4 * 1_024;
/// Maximum bytes of a request that names a user or a token.
const NAME_MAX_BYTES: usize = 16 * 1_024;

/// `/twirp/…`: every request there gets a response of Twirp.
pub(crate) async fn call(
    State(gate): State<Gate>,
    State(broker): State<Broker>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    answer(&gate, &broker, &parts, body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(gate: &Gate, broker: &Broker, parts: &Parts, body: Body) -> Result<Response, TwirpError> {
    let (method, path) = (&parts.method, parts.uri.path());
    let bad_route = |message: String| TwirpError::bad_route(message, format!("{method} {path}"));
    if method != Method::POST {
        return Err(bad_route(format!("unsupported method {:?} (only POST is allowed)", method.as_str())));
    }
    let name = path.strip_prefix(SERVICE).filter(|name| ["Auth", "Publish", "State"].contains(name));
    let Some(name) = name else { return Err(bad_route(format!("no handler for path {path:?}"))) };
    let Some(encoding) = Encoding::of(&parts.headers) else {
        let kind = parts.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        return Err(bad_route(format!("unexpected Content-Type: {:?}", String::from_utf8_lossy(kind))));
    };
    let read = async |max_bytes| gate.read(parts, body, max_bytes, || too_large(max_bytes)).await;
    // Rights are checked before the body is read. For `Auth`, the body has the token.
    Ok(match name {
        "Auth" => {
            let request = encoding.read(&read(NAME_MAX_BYTES).await?)?;
            encoding.respond(&auth(gate, parts, &request).await?)
        }
        "Publish" => {
            gate.allow_origin(parts)?;
            let application = gate.application(parts, Right::Publish)?;
            let PublishRequest { user_id, message } = encoding.read(&read(PUBLISH_MAX_BYTES).await?)?;
            publish_to(gate, broker, application, parts, &user_id, message.as_bytes()).await?;
            encoding.respond(&PublishResponse {})
        }
        _ => {
            let principal = require_principal(gate, parts).await?;
            let StateRequest { user_id } = encoding.read(&read(NAME_MAX_BYTES).await?)?;
            check_user(&user_id)?;
            encoding.respond(&StateResponse { state: state_for(broker, principal, &user_id).await? })
        }
    })
}

/// Identifies who makes the request, and refuses an anonymous one.
async fn require_principal(gate: &Gate, parts: &Parts) -> Result<Principal, Refusal> {
    match gate.principal(parts, Right::Read).await? {
        Principal::Anonymous => Err(authentication_required()),
        principal => Ok(principal),
    }
}

/// Returns the user of the token in a request. It needs no key: the token is the question.
async fn auth(gate: &Gate, parts: &Parts, request: &AuthRequest) -> Result<AuthResponse, Refusal> {
    gate.allow_origin(parts)?;
    let cookie = || cookie(&parts.headers, gate.identities.cookie.as_deref()?);
    let Some(token) = filled(unprefixed(&request.authorization)).or_else(cookie) else {
        let detail = "put a token into authorization, or send the session cookie";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "authentication required", detail));
    };
    let user_id = gate.identity(token, gate.limits.network(parts)).await?.user;
    Ok(AuthResponse { user_id })
}

fn too_large(max_bytes: usize) -> Refusal {
    let detail = format!("such a request has at most {max_bytes} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload too large", detail)
}
