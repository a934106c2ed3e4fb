use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use carillon_protocol::limits::HEARTBEAT_MS;
use carillon_protocol::{ServerMessage, Welcome};
use futures_util::stream;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::app::{App, RECONNECT_MAX_MS};
use crate::feed::Feed;
use crate::metrics::{self, Transport};
use crate::reader::{Caller, since};
use crate::reply::Refusal;

/// `GET /sse`: the frames of `/ws` as server-sent events (HTML Living Standard, section 9.2). `event`
/// is the type, `data` the same JSON, and `id` the cursor.
pub(crate) async fn stream(State(app): State<App>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    match open(&app, &parts).await {
        Ok((caller, feed, welcome)) => {
            let headers = [
                (header::CONTENT_TYPE, "text/event-stream"),
                (header::CACHE_CONTROL, "no-cache, no-transform"),
                // Some proxies hold back a response until it ends, and take this word for it.
                (header::HeaderName::from_static("x-accel-buffering"), "no"),
            ];
            (headers, Body::from_stream(events(Stream::new(app, &caller, feed, welcome)))).into_response()
        }
        Err(refusal) => refusal.turn_away(),
    }
}

async fn open(app: &App, parts: &Parts) -> Result<(Caller, Feed, Welcome), Refusal> {
    let since = since(parts)?;
    let caller = app.caller(parts).await?;
    let (feed, welcome) = app.join(&caller, since).await?;
    Ok((caller, feed, welcome))
}

/// One reader of `/sse`. It is polled by the connection, so a reader that does not read costs no more
/// than its place in the hub.
struct Stream {
    feed: Feed,
    app: App,
    welcome: Option<Welcome>,
    heartbeat: Instant,
    leave: Option<Instant>,
    /// When the token runs out.
    expires: Option<Instant>,
    ended: bool,
    _open: TaskTrackerToken,
}

fn events(stream: Stream) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(stream, async |mut stream| {
        if stream.ended {
            return None;
        }
        let chunk = stream.next().await;
        Some((Ok(Bytes::from(chunk)), stream))
    })
}

impl Stream {
    fn new(app: App, caller: &Caller, feed: Feed, welcome: Welcome) -> Self {
        metrics::joined(Transport::Sse);
        let heartbeat = Instant::now() + Duration::from_millis(HEARTBEAT_MS);
        let expires = caller.identity.as_ref().map(|identity| app.instant(identity.expires_at_ms));
        let open = app.readers.token();
        Self { feed, app, welcome: Some(welcome), heartbeat, leave: None, expires, ended: false, _open: open }
    }

    async fn next(&mut self) -> String {
        if let Some(welcome) = self.welcome.take() {
            let cursor = welcome.cursor.clone();
            return event(&ServerMessage::Welcome(welcome), Some(&cursor));
        }
        loop {
            let wake = [self.leave, self.expires].into_iter().flatten().fold(self.heartbeat, Instant::min);
            tokio::select! {
                biased;
                () = self.app.stop.cancelled(), if self.leave.is_none() => {
                    self.leave = Some(Instant::now() + self.app.drain_delay());
                }
                // Before the feed: a busy one would put off the heartbeat for ever.
                () = tokio::time::sleep_until(wake) => {
                    if self.leave.is_some_and(|leave| Instant::now() >= leave) {
                        return self.farewell();
                    }
                    if self.expires.is_some_and(|expires| Instant::now() >= expires) {
                        return self.end("token_expired", "the token has run out; come back with a fresh one");
                    }
                    self.heartbeat = Instant::now() + Duration::from_millis(HEARTBEAT_MS);
                    if let Some(cursor) = self.feed.cursor() {
                        let cursor = cursor.to_string();
                        return event(&ServerMessage::Heartbeat { cursor: cursor.clone() }, Some(&cursor));
                    }
                }
                output = self.feed.next() => {
                    self.app.note_written(&self.feed, &output);
                    metrics::sent(Transport::Sse, output.notifications);
                    if output.close.is_some() {
                        return self.end("closed", output.close_reason());
                    }
                    return output.texts().map(|frame| event_of(&frame)).collect();
                }
            }
        }
    }

    /// There are no close codes here: the word comes as an error, and then the end.
    fn end(&mut self, code: &str, detail: &str) -> String {
        self.ended = true;
        event(&ServerMessage::error(code, detail, None), None)
    }

    fn farewell(&mut self) -> String {
        self.ended = true;
        let reconnect_in_ms = fastrand::u64(0..RECONNECT_MAX_MS);
        format!("retry: {reconnect_in_ms}\n{}", event(&ServerMessage::Goodbye { reconnect_in_ms }, None))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        metrics::left(Transport::Sse);
    }
}

fn event(message: &ServerMessage, cursor: Option<&str>) -> String {
    lines(message.kind(), cursor, &message.to_json())
}

/// The event of a frame from the feed, whose type and cursor stand in its text.
fn event_of(frame: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        cursor: Option<&'a str>,
    }
    match serde_json::from_str::<Head<'_>>(frame) {
        Ok(head) => lines(head.kind, head.cursor, frame),
        // The feed writes nothing else; a reader that got it as plain data loses nothing.
        Err(_) => lines("message", None, frame),
    }
}

/// One event. A producer's JSON may span lines, each of which needs its own `data`: outside of
/// strings, where JSON allows line ends, one is as good as another.
fn lines(kind: &str, cursor: Option<&str>, data: &str) -> String {
    let mut event = String::with_capacity(data.len() + 96);
    let _ = writeln!(event, "event: {kind}");
    if let Some(cursor) = cursor {
        let _ = writeln!(event, "id: {cursor}");
    }
    for line in data.split(['\n', '\r']) {
        let _ = writeln!(event, "data: {line}");
    }
    event.push('\n');
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_type_cursor_and_data() {
        let frame =
            r#"{"type":"notification","cursor":"e.1-0","claimed_by":"b","notification":{"body":"x"}}"#;
        assert_eq!(event_of(frame), format!("event: notification\nid: e.1-0\ndata: {frame}\n\n"));
        let goodbye = event(&ServerMessage::Goodbye { reconnect_in_ms: 5 }, None);
        assert_eq!(goodbye, "event: goodbye\ndata: {\"type\":\"goodbye\",\"reconnect_in_ms\":5}\n\n");
    }

    #[test]
    fn line_ends_inside_a_producer_s_json_do_not_end_the_event() {
        let event = event_of(
            "{\"type\":\"notification\",\"cursor\":\"e.1-0\",\"notification\":{\r\n\"body\":\"x\"}}",
        );
        assert_eq!(event.matches("\n\n").count(), 1, "{event}");
        let data: Vec<_> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert!(serde_json::from_str::<serde_json::Value>(&data.join("\n")).is_ok());
    }
}
