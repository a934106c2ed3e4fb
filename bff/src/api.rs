//! `GET` and `POST /api/notifications`.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use carillon_broker::{History, Kind, Recalled, Revocation, Stored};
use carillon_protocol::limits::{
    ENTRY_MAX_BYTES, NAME_MAX_BYTES, PAGE_DEFAULT_ITEMS, PAGE_MAX_BYTES, PAGE_MAX_ITEMS, WAITING_MAX_ENTRIES,
};
use carillon_protocol::{Cursor, Entry, FieldError, Page, PageItem, Position, ready_to_push};
use serde_json::json;
use serde_json::value::RawValue;

use crate::app::App;
use crate::metrics;
use crate::reader::{Caller, query, since};
use crate::reply::Refusal;
use crate::signature::Verified;
use crate::signing::is_signed;

/// Reads of history for one page at most; a full page of small notifications takes half of them. Where history
/// holds much else, the page ends with what it has.
const PAGE_MAX_READS: usize = 16;

/// `GET /api/notifications?since=&limit=`: history, oldest first; without `since` from its beginning.
pub(crate) async fn list(State(app): State<App>, request: Request) -> Result<Json<Page>, Refusal> {
    let (parts, _) = request.into_parts();
    let limit = limit(&parts)?;
    let since = since(&parts)?;
    let caller = app.caller(&parts).await?;
    let audiences = caller.audiences();
    let resumes = since.is_some();
    let mut at = match since {
        Some(cursor) => cursor,
        None => Cursor { position: Position::ZERO, ..app.broker.tail().await? },
    };
    let read = app.read_position(&caller).await?;
    let mut page = Page { items: Vec::new(), next: String::new(), gap: false, read };
    for _ in 0..PAGE_MAX_READS {
        let history = app.feeds.history(&audiences, &at, limit - page.items.len()).await?;
        page.gap |= resumes && history.gap.is_some();
        let ended = history.ended;
        let full;
        (at, full) = take(history, limit, &mut page.items);
        if ended || full {
            break;
        }
    }
    page.next = at.to_string();
    Ok(Json(page))
}

/// Moves what fits from a read of history to a page. Says how far that came, and whether the page is full.
fn take(history: History, limit: usize, items: &mut Vec<PageItem>) -> (Cursor, bool) {
    let mut bytes: usize = items.iter().map(|item| item.notification.get().len()).sum();
    let mut at = history.from;
    for Recalled { claimed_by, stored, .. } in history.entries {
        let cursor = Cursor { position: stored.position, ..history.reached.clone() };
        if let Some(notification) = notification(&stored) {
            bytes += notification.get().len();
            if bytes > PAGE_MAX_BYTES && !items.is_empty() {
                return (at, true);
            }
            items.push(PageItem { cursor: cursor.to_string(), claimed_by, notification });
        }
        at = cursor;
        if items.len() == limit {
            return (at, true);
        }
    }
    (history.reached, false)
}

fn notification(stored: &Stored) -> Option<Box<RawValue>> {
    let entry = match stored.kind {
        Kind::Notification => Entry::read(&stored.raw, stored.position).ok()?,
        _ => return None,
    };
    RawValue::from_string(entry.json).ok()
}

fn limit(parts: &Parts) -> Result<usize, Refusal> {
    let Some(text) = query(parts, "limit") else { return Ok(PAGE_DEFAULT_ITEMS) };
    match text.parse() {
        Ok(limit @ 1..=PAGE_MAX_ITEMS) => Ok(limit),
        _ => {
            let detail = format!("a number from 1 to {PAGE_MAX_ITEMS}");
            let fault = FieldError { limit: Some(PAGE_MAX_ITEMS as u64), ..FieldError::new("limit", detail) };
            Err(Refusal::fields("the page cannot be given", vec![fault]))
        }
    }
}

/// `POST /api/revocations`: from now on, tokens of a `user` that were issued until now, or the one `token`
/// with this `jti`, are refused, and their readers closed.
pub(crate) async fn revoke(State(app): State<App>, request: Request) -> Result<StatusCode, Refusal> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        user: Option<String>,
        token: Option<String>,
    }
    let (parts, body) = request.into_parts();
    app.allow_origin(&parts)?;
    app.needs_key(&parts)?;
    require_json(&parts, "send a revocation as application/json")?;
    let body = to_bytes(body, ENTRY_MAX_BYTES).await.map_err(|_| too_large())?;
    let fault = |detail: String| Refusal::fields("this is no revocation", vec![FieldError::new("", detail)]);
    let Body { user, token } =
        serde_json::from_slice(&body).map_err(|error| fault(format!("{error}; send user or token")))?;
    let until_s = (app.clock)() / 1_000;
    let is_name = |name: &String| (1..=NAME_MAX_BYTES).contains(&name.len());
    let revocation = match (user.filter(is_name), token.filter(is_name)) {
        (Some(user), None) => Revocation::User { user, until_s },
        (None, Some(token_id)) => Revocation::Token { token_id, until_s },
        _ => return Err(fault(format!("send either user or token, of 1 to {NAME_MAX_BYTES} bytes"))),
    };
    app.broker.revoke(&revocation).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/notifications`: a notification as JSON; 202 with its id once it is in the list. A signature
/// counts as a key.
pub(crate) async fn publish(State(app): State<App>, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let is_signed = is_signed(&parts.headers) && !app.has_key(&parts);
    let sender = if is_signed { None } else { app.publisher(&parts).await? };
    require_json(&parts, "send a notification as application/json")?;
    let body = to_bytes(body, ENTRY_MAX_BYTES).await.map_err(|_| too_large())?;
    if !is_signed && sender.is_none() {
        app.application(&parts, body.len())?;
    }
    let signature = if is_signed { Some(app.verify(&parts, &body)?) } else { None };
    let text =
        std::str::from_utf8(&body).map_err(|error| invalid(vec![FieldError::new("", error.to_string())]))?;
    if let Some(sender) = sender {
        let (id, status) = app.send(&sender, text, Some(uuid::Uuid::now_v7().to_string())).await?;
        return Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "status": status }))).into_response());
    }
    // A webhook's repeated attempts are one notification.
    let webhook_id = signature.as_ref().and_then(Verified::webhook_id);
    let id = || webhook_id.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned);
    let (entry, notification) = ready_to_push(text, id).map_err(invalid)?;
    if entry.len() > ENTRY_MAX_BYTES {
        return Err(too_large());
    }
    if app.broker.waiting().await? >= WAITING_MAX_ENTRIES {
        return Err(list_full());
    }
    if let Some(signature) = &signature {
        app.use_once(signature).await?;
    }
    app.broker.push(&[entry.into_bytes()]).await?;
    metrics::accepted();
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": notification.id }))).into_response())
}

pub(crate) fn list_full() -> Refusal {
    let detail = format!("{WAITING_MAX_ENTRIES} notifications wait to be taken; try again shortly");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the list is full", detail)
}

pub(crate) fn invalid(errors: Vec<FieldError>) -> Refusal {
    Refusal::fields("this is no notification", errors)
}

pub(crate) fn too_large() -> Refusal {
    let detail = format!("a notification has at most {ENTRY_MAX_BYTES} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too large", detail)
}

/// Refuses what does not say that it is JSON: a form of a foreign page cannot say so.
pub(crate) fn require_json(parts: &Parts, detail: &str) -> Result<(), Refusal> {
    let value =
        parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not JSON", detail))
}

impl App {
    /// Up to where the signed-in user has read.
    pub(crate) async fn read_position(&self, caller: &Caller) -> Result<Option<String>, Refusal> {
        match caller.user() {
            Some(user) => Ok(self.broker.read_position(user).await?.map(|cursor| cursor.to_string())),
            None => Ok(None),
        }
    }
}
