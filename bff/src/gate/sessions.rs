//! `POST /api/sessions`: a session before there is a connection, for clients that start a job first.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use carillon_protocol::format_timestamp;
use carillon_protocol::http::SessionOpened;

use crate::gate::Gate;
use crate::gate::caller::session_of;
use crate::refusal::Refusal;

/// Opens the session that the request names, or a new one: 201 with its token, and the id by which an application may
/// address it.
pub(crate) async fn open(State(gate): State<Gate>, request: Request) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    gate.allow_origin(&parts)?;
    let named = session_of(&parts);
    let open = gate.session(named.as_deref().unwrap_or("new")).await?;
    let body = SessionOpened {
        session: open.token,
        id: open.session.id.to_string(),
        expires_at: format_timestamp(open.session.expires_at_ms),
    };
    Ok((StatusCode::CREATED, Json(body)).into_response())
}
