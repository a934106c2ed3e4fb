use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use carillon_protocol::received::Goodbye;
use carillon_protocol::{CloseCode, ServerMessage, Welcome};
use futures_util::stream;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::app::App;
use crate::feed::{Feed, Output};
use crate::frame::{self, event_of};
use crate::metrics::{self, Transport};
use crate::reader::{Caller, since};
use crate::reply::Refusal;
use crate::visit::{Happened, Visit};

/// Bytes that are handed on at once at most; a single event may be larger.
const CHUNK_BYTES: usize = 16 * 1024;
/// A reader that is turned away for now comes back after a second, or what the refusal asks for, and as much again at
/// random, so that not all come at once.
const RETRY_MS: u64 = 1_000;

/// `GET /sse`: the frames of `/ws` as server-sent events (HTML Living Standard, section 9.2). `event`
/// is the type, `data` the same JSON, and `id` the cursor.
pub(crate) async fn stream(State(app): State<App>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    match open(&app, &parts).await {
        Ok((caller, feed, welcome)) => {
            let expires_at_ms = caller.identity.as_ref().map(|identity| identity.expires_at_ms);
            let open = app.readers.token();
            let visit = Visit::new(app, feed, expires_at_ms, Transport::Sse);
            // A reader that gets nothing more resumes from here.
            let cursor = welcome.cursor.clone();
            let first = frame::event("welcome", Some(&cursor), &ServerMessage::Welcome(welcome).to_json());
            answer(Body::from_stream(events(Stream {
                visit,
                waiting: vec![first],
                holds: None,
                ended: false,
                _open: open,
            })))
        }
        Err(refusal) => turn_away(refusal),
    }
}

fn answer(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache, no-store, no-transform"),
        // Some proxies hold back a response until it ends, unless this header says otherwise.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

/// `EventSource` comes back after the end of a stream, and gives up for good after any status but 200. So what passes is a
/// stream that says when to come back, and ends.
fn turn_away(refusal: Refusal) -> Response {
    let passes = matches!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    if !passes {
        return refusal.turn_away();
    }
    metrics::reader_refused(refusal.status().as_u16());
    let least_ms =
        refusal.retry_after().map_or(RETRY_MS, |wait| u64::try_from(wait.as_millis()).unwrap_or(RETRY_MS));
    let retry = format!("retry: {}\n", least_ms + fastrand::u64(0..=least_ms));
    let code = if refusal.status() == StatusCode::TOO_MANY_REQUESTS { "rate_limited" } else { "unavailable" };
    let error = event_of(&ServerMessage::error(code, refusal.words(), None).to_json());
    let mut answer = answer(Body::from([retry.as_bytes(), &error].concat()));
    // Such as the one that leads to another replica.
    let cookie = refusal.into_response().headers_mut().remove(header::SET_COOKIE);
    answer.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
    answer
}

async fn open(app: &App, parts: &Parts) -> Result<(Caller, Feed, Welcome), Refusal> {
    let since = since(parts);
    let caller = app.caller(parts).await?;
    let (feed, welcome) = app.join(&caller, since).await?;
    Ok((caller, feed, welcome))
}

/// One reader of `/sse`. It is polled by the connection, so a reader that does not read costs no more
/// than its place in the hub and one chunk.
struct Stream {
    visit: Visit,
    /// Events that are to be handed on, the next one last.
    waiting: Vec<Bytes>,
    /// What they are of: it counts as written when the connection asks for more.
    holds: Option<Output>,
    ended: bool,
    /// The replica does not end before this stream does.
    _open: TaskTrackerToken,
}

fn events(stream: Stream) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(stream, async |mut stream| {
        if stream.waiting.is_empty() {
            if stream.ended {
                return None;
            }
            stream.wait().await;
        }
        Some((Ok(stream.chunk()), stream))
    })
}

impl Stream {
    /// Waits for what comes next.
    async fn wait(&mut self) {
        if let Some(output) = self.holds.take() {
            self.visit.written(&output);
        }
        let event = |message: &ServerMessage| event_of(&message.to_json());
        self.waiting = match self.visit.next().await {
            Happened::Given(output) => {
                let mut events: Vec<_> = output.events().collect();
                self.holds = Some(output);
                events.reverse();
                events
            }
            Happened::Heartbeat(cursor) => vec![event(&ServerMessage::heartbeat(cursor.to_string()))],
            Happened::Goodbye(reconnect_in_ms) => {
                self.ended = true;
                let goodbye = event(&ServerMessage::Goodbye(Goodbye { reconnect_in_ms }));
                vec![[format!("retry: {reconnect_in_ms}\n").as_bytes(), &goodbye].concat().into()]
            }
            // There are no close codes here: the word comes as an error, and then the end.
            Happened::End(code, reason) => {
                self.ended = true;
                let word = match code {
                    CloseCode::TOKEN_EXPIRED => "token_expired",
                    _ => "closed",
                };
                vec![event(&ServerMessage::error(word, reason, None))]
            }
        };
    }

    /// The next events, together no more than a chunk.
    fn chunk(&mut self) -> Bytes {
        let Some(first) = self.waiting.pop() else { return Bytes::new() };
        if self.waiting.last().is_none_or(|next| first.len() + next.len() > CHUNK_BYTES) {
            return first;
        }
        let mut chunk = BytesMut::from(&first[..]);
        while let Some(next) = self.waiting.pop_if(|next| chunk.len() + next.len() <= CHUNK_BYTES) {
            chunk.extend_from_slice(&next);
        }
        chunk.freeze()
    }
}
