//! `GET` and `POST /api/notifications`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use carillon_auth::seal::SessionId;
use carillon_auth::signature::Verified;
use carillon_broker::limits::READ_MAX_BYTES;
use carillon_broker::{Broker, EntryKind, Recalled, Revocation, Stored};
use carillon_protocol::http::{Page, PageItem, Published, RevocationRequest};
use carillon_protocol::limits::{
    ENTRY_MAX_BYTES, NAME_MAX_BYTES, PAGE_DEFAULT_ITEMS, PAGE_MAX_BYTES, PAGE_MAX_ITEMS, WAITING_MAX_ENTRIES,
};
use carillon_protocol::{Audience, Cursor, Entry, FieldError, Position, ready_to_push};
use serde_json::value::RawValue;

use crate::delivery::feed::Feeds;
use crate::entry_refused::{invalid, list_full, too_large};
use crate::gate::Gate;
use crate::gate::caller::{Caller, cursor, since};
use crate::gate::principal::{Principal, Right};
use crate::gate::signed::is_signed;
use crate::limits::budget::{Budget, Permit};
use crate::limits::clients::Publisher;
use crate::metrics::{self, Limit};
use crate::people::messages::Messages;
use crate::refusal::Refusal;
use crate::request::{query, require_json};

/// Maximum reads of history for one page; a full page of small notifications takes half of them. Where history holds many
/// other entries, the page ends early.
const PAGE_MAX_READS: usize = 16;
/// Maximum bytes of pages that are being read or written.
const PAGES_MAX_BYTES: usize = 32 * 1024 * 1024;
/// The bytes that a page is expected to take while it is read: its notifications and its JSON.
const PAGE_HELD_BYTES: usize = 2 * PAGE_MAX_BYTES;
/// How long a request waits for its turn to read a page.
const PAGE_TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// The `Retry-After` of a refused page, in seconds.
const PAGE_RETRY_SECONDS: u64 = 5;
/// The `before` of the newest page.
const NOW: &str = "now";

/// `GET /api/notifications?since=&before=&limit=`: history, oldest first; without `since` from its beginning. With `before`,
/// it is the last page before a cursor or `now`, and begins no earlier than after `since`.
pub(crate) async fn list(
    State(gate): State<Gate>,
    State(history): State<History>,
    State(messages): State<Messages>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, _) = request.into_parts();
    let limit = limit(&parts)?;
    let since = since(&parts);
    let caller = gate.caller(&parts).await?;
    gate.limits.count_page(caller.network)?;
    let mut permit = history.permit(&caller).await?;
    let audiences = caller.audiences();
    let page = match query(&parts, "before") {
        None => history.after(&audiences, since, limit).await?,
        Some(before) => history.before(&audiences, before_cursor(&before), since, limit).await?,
    };
    let page = Page { read: messages.read_position(&caller).await?, ..page };
    let json = serde_json::to_vec(&page).unwrap_or_default();
    permit.shrink(json.len());
    let body = Bytes::from_owner(ChargedPage { json, _permit: permit });
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Parses `before`; `None` is the newest entry.
fn before_cursor(text: &str) -> Option<Cursor> {
    if text == NOW { None } else { Some(cursor(text)) }
}

/// A page that is charged to the budget until it is written.
struct ChargedPage {
    json: Vec<u8>,
    _permit: Permit,
}

impl AsRef<[u8]> for ChargedPage {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

/// Pages of history over HTTP. Cheap to clone.
#[derive(Clone)]
pub(crate) struct History {
    broker: Broker,
    feeds: Arc<Feeds>,
    budget: Arc<Budget>,
}

impl History {
    pub(crate) fn new(broker: Broker, feeds: Arc<Feeds>) -> Self {
        Self { broker, feeds, budget: Budget::new(PAGES_MAX_BYTES) }
    }

    async fn permit(&self, caller: &Caller) -> Result<Permit, Refusal> {
        let permit = self.budget.take(PAGE_HELD_BYTES, caller.network, PAGE_TURN_TIMEOUT).await;
        permit.ok_or_else(|| {
            metrics::limit_reached(Limit::PageBytes);
            let detail = "too many pages of history are being read; try again shortly";
            Refusal::unavailable("history busy", detail, PAGE_RETRY_SECONDS)
        })
    }

    /// Returns the page after a cursor.
    async fn after(
        &self,
        audiences: &[Audience],
        since: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Refusal> {
        let (resumes, reads) = (since.is_some(), self.feeds.pages().reads());
        let mut at = match since {
            Some(cursor) => cursor,
            None => Cursor { position: Position::ZERO, ..self.broker.tail().await? },
        };
        let (mut items, mut gap) = (Items::new(limit), false);
        for _ in 0..PAGE_MAX_READS {
            let history = reads.after(audiences, &at, limit - items.all.len(), READ_MAX_BYTES).await?;
            gap |= resumes && !history.gaps.is_empty();
            at = history.from;
            let is_full = !items.add(history.entries, &history.reached.epoch, &mut at);
            if is_full {
                break;
            }
            at = history.reached;
            if history.ended {
                break;
            }
        }
        Ok(Page { items: items.all, next: at.to_string(), previous: None, gap, read: None })
    }

    /// Returns the page before a cursor, or the newest one; it begins no earlier than after `since`.
    async fn before(
        &self,
        audiences: &[Audience],
        before: Option<Cursor>,
        since: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, Refusal> {
        let reads = self.feeds.pages().reads();
        let (begin, gap) = match &since {
            Some(since) => {
                let first = reads.after(audiences, since, 1, READ_MAX_BYTES).await?;
                (first.from.position, !first.gaps.is_empty())
            }
            None => (Position::ZERO, false),
        };
        let mut items = Items::new(limit);
        let (mut at, mut next, mut previous) = (before, None, None);
        for _ in 0..PAGE_MAX_READS {
            let history = reads.before(audiences, at.as_ref(), limit - items.all.len()).await?;
            next.get_or_insert_with(|| history.from.clone());
            let mut oldest = history.from;
            let entries = history.entries.into_iter().rev();
            let newest_first = entries.take_while(|recalled| recalled.stored.position > begin);
            let ended = history.ended || history.reached.position <= begin;
            let is_full = !items.add(newest_first, &history.reached.epoch, &mut oldest);
            previous = if is_full { Some(oldest) } else { Some(history.reached).filter(|_| !ended) };
            if is_full || previous.is_none() {
                break;
            }
            at.clone_from(&previous);
        }
        items.all.reverse();
        Ok(Page {
            items: items.all,
            next: next.map(|next| next.to_string()).unwrap_or_default(),
            previous: previous.map(|previous| previous.to_string()),
            gap,
            read: None,
        })
    }
}

/// The items of a page, within its bounds.
struct Items {
    all: Vec<PageItem>,
    bytes: usize,
    limit: usize,
}

impl Items {
    fn new(limit: usize) -> Self {
        Self { all: Vec::new(), bytes: 0, limit }
    }

    /// Adds notifications while the page has room, and moves `at` to the last entry that was read. Returns whether the page
    /// has room for more.
    fn add(&mut self, entries: impl IntoIterator<Item = Recalled>, epoch: &str, at: &mut Cursor) -> bool {
        for Recalled { claimed_by, stored, .. } in entries {
            let cursor = Cursor { epoch: epoch.to_owned(), position: stored.position };
            if let Some(notification) = notification(&stored) {
                self.bytes += notification.get().len();
                if self.bytes > PAGE_MAX_BYTES && !self.all.is_empty() {
                    return false;
                }
                self.all.push(PageItem { cursor: cursor.to_string(), claimed_by, notification });
            }
            *at = cursor;
            if self.all.len() == self.limit {
                return false;
            }
        }
        true
    }
}

fn notification(stored: &Stored) -> Option<Box<RawValue>> {
    let entry = match stored.kind {
        EntryKind::Notification => Entry::read(&stored.raw, stored.position).ok()?,
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
            Err(Refusal::fields("invalid page request", vec![fault]))
        }
    }
}

/// `POST /api/revocations`: refuses the tokens of a `user` that were issued until now, or the `token` with this `jti`, or
/// the `session` with this id, and closes their readers.
pub(crate) async fn revoke(State(gate): State<Gate>, request: Request) -> Result<StatusCode, Refusal> {
    let (parts, body) = request.into_parts();
    gate.allow_origin(&parts)?;
    let application = gate.application(&parts, Right::Revoke)?;
    require_json(&parts, "send a revocation as application/json")?;
    let body = gate.read(&parts, body, ENTRY_MAX_BYTES, too_large).await?;
    let fault = |detail: String| Refusal::fields("invalid revocation", vec![FieldError::new("", detail)]);
    let RevocationRequest { user, token, session } = serde_json::from_slice(&body)
        .map_err(|error| fault(format!("{error}; send user, token or session")))?;
    let until_s = (gate.clock)() / 1_000;
    let is_name = |name: &String| (1..=NAME_MAX_BYTES).contains(&name.len());
    let is_id = |id: &String| id.parse::<SessionId>().is_ok();
    let revocation = match (user.filter(is_name), token.filter(is_name), session.filter(is_id)) {
        (Some(user), None, None) => Revocation::User { user, until_s },
        (None, Some(token_id), None) => Revocation::Token { token_id, until_s },
        (None, None, Some(session_id)) => Revocation::Session { session_id, until_s },
        _ => {
            let detail = format!(
                "send one of user and token, of 1 to {NAME_MAX_BYTES} bytes, and session, the id of one: 32 hexadecimal digits"
            );
            return Err(fault(detail));
        }
    };
    gate.broker.revoke_for(&revocation, gate.identities.tokens.revocations_keep_s()).await?;
    tracing::info!(key = gate.name_of(application), "a revocation was stored");
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/notifications`: accepts a notification as JSON, and answers 202 with its id once it is in the list. A
/// signature counts as a key.
pub(crate) async fn publish(
    State(gate): State<Gate>,
    State(messages): State<Messages>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    gate.allow_origin(&parts)?;
    let keyed = if is_signed(&parts.headers) { gate.keyed_or_signed(&parts)? } else { None };
    let is_signed = is_signed(&parts.headers) && keyed.is_none();
    let (sender, application) = match (is_signed, keyed) {
        (true, _) => (None, None),
        (false, Some(application)) => (None, Some(application)),
        (false, None) => match gate.principal(&parts, Right::Publish).await? {
            Principal::User(sender) => (Some(sender), None),
            Principal::Application(one) => (None, Some(one)),
            Principal::Anonymous => return Err(gate.key_required(Right::Publish)),
        },
    };
    let guess = is_signed.then(|| gate.guess(&parts));
    if is_signed {
        gate.can_verify(&parts)?;
    }
    require_json(&parts, "send a notification as application/json")?;
    let body = gate.read(&parts, body, ENTRY_MAX_BYTES, too_large).await?;
    if let Some(application) = application {
        gate.count(application, &parts, body.len())?;
    }
    let signature = match guess {
        Some(guess) => {
            let verified = gate.verify(&parts, &body)?;
            guess.withdraw();
            gate.limits.count_publish(&Publisher::Signers, body.len())?;
            Some(verified)
        }
        None => None,
    };
    let text =
        std::str::from_utf8(&body).map_err(|error| invalid(vec![FieldError::new("", error.to_string())]))?;
    if let Some(sender) = sender {
        let (id, status) = messages.send(&sender, text, Some(uuid::Uuid::now_v7().to_string())).await?;
        return Ok((StatusCode::ACCEPTED, Json(Published { id, status: Some(status) })).into_response());
    }
    // Repeated attempts of a webhook are one notification.
    let webhook_id = signature.as_ref().and_then(Verified::webhook_id);
    let id = || webhook_id.map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned);
    let (entry, notification) = ready_to_push(text, id).map_err(invalid)?;
    if entry.len() > ENTRY_MAX_BYTES {
        return Err(too_large());
    }
    if gate.broker.waiting().await? >= WAITING_MAX_ENTRIES {
        return Err(list_full());
    }
    if let Some(signature) = &signature {
        gate.use_once(signature).await?;
    }
    gate.broker.push(&[entry.into_bytes()]).await?;
    metrics::accepted();
    Ok((StatusCode::ACCEPTED, Json(Published { id: notification.id, status: None })).into_response())
}
