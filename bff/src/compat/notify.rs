//! `GET /notify/ws`: the socket of go-bridget's notify, for the clients that it has. Its frames have a `kind`:
//! `connect` first, then `state`, and what is said to the user as it was published. Nothing else is sent.

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use carillon_protocol::Audience;
use serde_json::json;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::delivery::feed::Output;
use crate::delivery::hub::Direct;
use crate::gate::app::App;
use crate::gate::caller::{Caller, query, reader_of};
use crate::gate::identity::{Identities, filled};
use crate::refusal::Refusal;
use crate::sockets::ws::{Dialect, accept, upgrade_of};

/// `GET /notify/ws`
pub(crate) async fn upgrade(State(app): State<App>, request: Request) -> Response {
    open(app, request).await.unwrap_or_else(Refusal::turn_away)
}

async fn open(app: App, request: Request) -> Result<Response, Refusal> {
    let (mut parts, _) = request.into_parts();
    app.allow_origin(&parts)?;
    let Some(token) = token_of(&app, &parts) else {
        let detail =
            "send a token: in Authorization, as ?authorization= or ?token=, or in the session cookie";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "sign in first", detail));
    };
    let identity = app.identity(&token, app.limits.network(&parts)).await?;
    let upgrade = upgrade_of(&mut parts)?;
    let connect = json!({ "kind": "connect", "userID": identity.user }).to_string();
    let user = Audience::User(identity.user.clone());
    let caller = Caller::user_alone(identity, app.limits.network(&parts));
    let (feed, _) = app.attach(&caller, reader_of([user].into(), None, caller.network)).await?;
    Ok(accept(upgrade, app, caller, feed, Dialect::Notify, connect))
}

/// Where notify's clients have their token: in `Authorization` with or without `Bearer`, as `?authorization=`
/// likewise, or in the cookie; and where else tokens are taken from.
fn token_of(app: &App, parts: &Parts) -> Option<String> {
    let own = plain(&parts.headers).map(str::to_owned);
    own.or_else(|| Identities::stated(parts).map(str::to_owned))
        .or_else(|| {
            query(parts, "authorization").and_then(|text| filled(unprefixed(&text)).map(str::to_owned))
        })
        .or_else(|| app.identities.token_of(parts).map(str::to_owned))
}

/// A token that is all that the header holds.
fn plain(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    filled(value).filter(|value| !value.contains(' '))
}

/// A token without the `Bearer` before it.
pub(crate) fn unprefixed(text: &str) -> &str {
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token,
        _ => text,
    }
}

/// What goes out of what a reader is given: notifications are not known here.
pub(crate) fn texts(output: &Output) -> Vec<Utf8Bytes> {
    let direct = output.direct.iter().flat_map(|(direct, _)| direct);
    direct.filter_map(text).collect()
}

fn text(direct: &Direct) -> Option<Utf8Bytes> {
    match direct {
        Direct::State(state) => Some(format!(r#"{{"kind":"state","state":{state}}}"#).into()),
        // A text frame is UTF-8; for anything else a browser would cut the connection.
        Direct::Raw { payload, .. } => Some(
            Utf8Bytes::try_from(payload.clone())
                .unwrap_or_else(|_| String::from_utf8_lossy(payload).into_owned().into()),
        ),
        Direct::Notification { .. } | Direct::Presence { .. } => None,
    }
}
