mod event;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use carillon_protocol::received::Goodbye;
use carillon_protocol::{CloseCode, ServerMessage, Welcome};
use carillon_service::WRITE_TIMEOUT;
use futures_util::stream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::delivery::feed::{Feed, Output};
use crate::gate::caller::{Caller, since};
use crate::metrics::{self, Limit, Transport};
use crate::refusal::Refusal;
use crate::sockets::readers::Readers;
use crate::sockets::visit::{Visit, VisitEvent};
use crate::sockets::ws::WRITE_CHUNK_BYTES;
use event::{Event, event, event_of};

/// The reconnect delay of a refused reader, unless the refusal names another. As much again is added at random, so that not
/// all reconnect at once.
const RETRY_MS: u64 = 1_000;

/// `GET /sse`: the frames of `/ws` as server-sent events (HTML Living Standard, section 9.2). `event`
/// is the type, `data` the same JSON, and `id` the cursor.
pub(crate) async fn stream(State(readers): State<Readers>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    match open(&readers, &parts).await {
        Ok((caller, feed, welcome)) => {
            let expires_at_ms = caller.identity.as_ref().map(|identity| identity.expires_at_ms);
            let open = readers.open.token();
            let visit = Visit::new(readers, feed, expires_at_ms, Transport::Sse);
            // The cursor that a reader without further events resumes from.
            let cursor = welcome.cursor.clone();
            let first = event("welcome", Some(&cursor), &ServerMessage::Welcome(welcome).to_json());
            answer(Body::from_stream(events(Stream {
                visit,
                waiting: first.into(),
                output: None,
                ended: false,
                _open: open,
            })))
        }
        Err(refusal) => refuse(refusal),
    }
}

fn answer(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache, no-store, no-transform"),
        // Some proxies buffer a response until it ends, unless this header turns that off.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

/// `EventSource` reconnects after the end of a stream, and gives up for good after any status but 200. So a temporary
/// refusal is a stream that names a reconnect delay and ends.
fn refuse(refusal: Refusal) -> Response {
    let is_temporary =
        matches!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    if !is_temporary {
        return refusal.into_response_counted();
    }
    metrics::reader_refused(refusal.status().as_u16());
    let least_ms =
        refusal.retry_after().map_or(RETRY_MS, |wait| u64::try_from(wait.as_millis()).unwrap_or(RETRY_MS));
    let retry = format!("retry: {}\n", least_ms + fastrand::u64(0..=least_ms));
    let code = if refusal.status() == StatusCode::TOO_MANY_REQUESTS { "rate_limited" } else { "unavailable" };
    let error = event_of(&ServerMessage::error(code, refusal.to_line(), None).to_json());
    let mut answer = answer(Body::from([retry.as_bytes(), &error].concat()));
    // For example the cookie that makes a front door choose another replica.
    let cookie = refusal.into_response().headers_mut().remove(header::SET_COOKIE);
    answer.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    answer
}

async fn open(readers: &Readers, parts: &Parts) -> Result<(Caller, Feed, Welcome), Refusal> {
    let since = since(parts);
    let caller = readers.gate.caller(parts).await?;
    let (feed, welcome) = readers.join(&caller, since).await?;
    Ok((caller, feed, welcome))
}

/// One reader of `/sse`. The HTTP connection polls it, so a reader that does not read costs no more than its entry in the
/// hub and the output that it holds.
struct Stream {
    visit: Visit,
    /// The rest of the event that is being written.
    waiting: Event,
    /// The output that is being written, and the number of its frames that were handed to the connection. It counts as
    /// written when the connection polls for more.
    output: Option<(Output, usize)>,
    ended: bool,
    /// Keeps the replica running until this stream has ended.
    _open: TaskTrackerToken,
}

fn events(stream: Stream) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(stream, async |mut stream| {
        loop {
            if let Some(part) = stream.waiting.next() {
                return Some((Ok(part), stream));
            }
            if stream.ended {
                return None;
            }
            stream.waiting = stream.next().await;
        }
    })
}

impl Stream {
    /// Returns the next event.
    async fn next(&mut self) -> Event {
        let event = |message: &ServerMessage| event_of(&message.to_json()).into();
        loop {
            if let Some(event) = self.next_of_output().await {
                return event;
            }
            match self.visit.next().await {
                VisitEvent::Output(output) => self.output = Some((output, 0)),
                VisitEvent::Heartbeat(cursor) => return event(&ServerMessage::heartbeat(cursor.to_string())),
                VisitEvent::Goodbye(reconnect_in_ms) => {
                    self.ended = true;
                    let goodbye = event_of(&ServerMessage::Goodbye(Goodbye { reconnect_in_ms }).to_json());
                    let retry = format!("retry: {reconnect_in_ms}\n");
                    return Bytes::from([retry.as_bytes(), &goodbye].concat()).into();
                }
                // A stream has no close codes, so the reason is sent as an `error` event before the end.
                VisitEvent::End(code, reason) => {
                    self.ended = true;
                    let word = match code {
                        CloseCode::TOKEN_EXPIRED => "token_expired",
                        _ => "closed",
                    };
                    return event(&ServerMessage::error(word, reason, None));
                }
            }
        }
    }

    /// Returns the next event of the current output; `None` when all were handed over.
    async fn next_of_output(&mut self) -> Option<Event> {
        let (output, at) = self.output.as_mut()?;
        if let Some(text) = output.text(*at) {
            *at += 1;
            if output.direct.is_some() && text.len() > WRITE_CHUNK_BYTES {
                return Some(self.charged(&text).await);
            }
            return Some(Event::new(&text, output.page()));
        }
        let (output, _) = self.output.take()?;
        self.visit.written(&output);
        None
    }

    /// Returns a large event for this reader alone. It is charged to the budget, so that unread events do not fill the
    /// replica's memory.
    async fn charged(&mut self, text: &Utf8Bytes) -> Event {
        let feed = &self.visit.feed;
        let budget = self.visit.readers.feeds.pages().budget();
        match budget.take(text.len(), feed.network(), WRITE_TIMEOUT).await {
            Some(permit) => Event::new(text, Some(&Arc::new(permit))),
            None => {
                metrics::limit_reached(Limit::Slow);
                self.ended = true;
                self.output = None;
                let reason = "too many bytes wait for readers of this replica; resume from your cursor";
                event_of(&ServerMessage::error("closed", reason, None).to_json()).into()
            }
        }
    }
}
