//! `GET /notify/ws`: the socket of go-bridget's notify, for its existing clients. Its frames have a `kind`: `connect` first,
//! then `state`, and raw payloads as they were published. It sends no other frames.

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use carillon_auth::identity::Identities;
use carillon_protocol::Audience;
use carillon_service::filled;
use serde_json::json;

use crate::gate::Gate;
use crate::gate::caller::{Caller, reader_of};
use crate::refusal::Refusal;
use crate::request::query;
use crate::sockets::readers::Readers;
use crate::sockets::ws::{Dialect, accept, upgrade_of};

/// `GET /notify/ws`
pub(crate) async fn upgrade(State(readers): State<Readers>, request: Request) -> Response {
    open(readers, request).await.unwrap_or_else(Refusal::into_response_counted)
}

async fn open(readers: Readers, request: Request) -> Result<Response, Refusal> {
    let (mut parts, _) = request.into_parts();
    readers.gate.allow_origin(&parts)?;
    let Some(token) = token_of(&readers.gate, &parts) else {
        let detail =
            "send a token: in Authorization, as ?authorization= or ?token=, or in the session cookie";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "authentication required", detail));
    };
    let identity = readers.gate.identity(&token, readers.gate.limits.network(&parts)).await?;
    let upgrade = upgrade_of(&mut parts)?;
    let connect = json!({ "kind": "connect", "userID": identity.user }).to_string();
    let user = Audience::User(identity.user.clone());
    let caller = Caller::user_alone(identity, readers.gate.limits.network(&parts));
    let (feed, _) = readers.join_feed(&caller, reader_of([user].into(), None, caller.network)).await?;
    Ok(accept(upgrade, readers, caller, feed, Dialect::Notify, connect))
}

/// Returns the token of notify's clients: from `Authorization` with or without `Bearer`, from `?authorization=` likewise,
/// from the cookie, or from where other clients have it.
fn token_of(gate: &Gate, parts: &Parts) -> Option<String> {
    let own = bare_token(&parts.headers).map(str::to_owned);
    own.or_else(|| Identities::explicit_token(parts).map(str::to_owned))
        .or_else(|| {
            query(parts, "authorization").and_then(|text| filled(unprefixed(&text)).map(str::to_owned))
        })
        .or_else(|| gate.identities.token_of(parts).map(str::to_owned))
}

/// Returns a token that is the whole header.
fn bare_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    filled(value).filter(|value| !value.contains(' '))
}

/// Returns a token without the scheme `Bearer`.
pub(crate) fn unprefixed(text: &str) -> &str {
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token,
        _ => text,
    }
}
