mod command;

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use carillon_protocol::limits::{ENTRY_MAX_BYTES, HEARTBEAT_MS, SILENCE_MS};
use carillon_protocol::{CloseCode, ServerMessage};
use futures_util::{FutureExt, SinkExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite;

use crate::app::App;
use crate::feed::{Feed, Output};
use crate::metrics::{self, Limit, Transport};
use crate::notify;
use crate::reader::{Caller, since};
use crate::reply::Refusal;
use command::Allowance;

/// What a socket reads at once. axum's default of 128 KiB is allocated for every socket.
const READ_BUFFER_BYTES: usize = 1_024;
/// Frames are gathered up to here before they are written.
const WRITE_BUFFER_BYTES: usize = 1_024;
/// What may wait to be written; more than the largest frame, where each byte may have become a `\u0000`.
const WRITE_BUFFER_MAX_BYTES: usize = 8 * ENTRY_MAX_BYTES;
/// The longest message from a client. A longer one is closed with a code that says so.
const MESSAGE_MAX_BYTES: usize = ENTRY_MAX_BYTES;
/// What is read of a message at all: beyond it the connection is cut, with the rest of it unread.
const MESSAGE_READ_MAX_BYTES: usize = 4 * MESSAGE_MAX_BYTES;
/// A socket that takes nothing for this long is closed as slow.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// A close frame that cannot be written in this time is not sent, nor its answer waited for any longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// `GET /ws`
pub(crate) async fn upgrade(State(app): State<App>, request: Request) -> Response {
    open(app, request).await.unwrap_or_else(Refusal::turn_away)
}

async fn open(app: App, request: Request) -> Result<Response, Refusal> {
    let (mut parts, _) = request.into_parts();
    let since = since(&parts)?;
    let caller = app.caller(&parts).await?;
    let upgrade = upgrade_of(&mut parts).await?;
    let (feed, welcome) = app.join(&caller, since).await?;
    let welcome = ServerMessage::Welcome(welcome).to_json();
    Ok(accept(upgrade, app, caller, feed, Dialect::Frames, welcome))
}

/// The upgrade that a request asks for; 426 where it asks for none.
pub(crate) async fn upgrade_of(parts: &mut Parts) -> Result<WebSocketUpgrade, Refusal> {
    WebSocketUpgrade::from_request_parts(parts, &()).await.map_err(|rejection| {
        Refusal::new(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket", rejection.body_text())
    })
}

/// What a socket says and understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Frames with a `type`, in both directions.
    Frames,
    /// What the clients of notify know, which say nothing.
    Notify,
}

/// Serves a reader on the socket that comes of an upgrade, and says `first` before all else.
pub(crate) fn accept(
    upgrade: WebSocketUpgrade,
    app: App,
    caller: Caller,
    feed: Feed,
    dialect: Dialect,
    first: String,
) -> Response {
    let readers = app.readers.clone();
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_MAX_BYTES)
        .max_message_size(MESSAGE_READ_MAX_BYTES)
        .max_frame_size(MESSAGE_READ_MAX_BYTES)
        .on_upgrade(move |socket| {
            let expires = caller.identity.as_ref().map(|identity| app.instant(identity.expires_at_ms));
            let (heard, allowance, caller) = (Instant::now(), Allowance::new(), Box::new(caller));
            let socket = Socket { socket, dialect, feed, app, caller, heard, expires, allowance };
            readers.track_future(socket.serve(first))
        })
}

/// One reader on a WebSocket. One task owns it: it writes, reads and keeps time.
struct Socket {
    socket: WebSocket,
    dialect: Dialect,
    feed: Feed,
    app: App,
    caller: Box<Caller>,
    /// When something last came from the client.
    heard: Instant,
    /// When the token runs out.
    expires: Option<Instant>,
    allowance: Allowance,
}

/// Why a socket is served no longer.
enum End {
    /// Close it with this code.
    Close(CloseCode, &'static str),
    /// It is closed or broken already.
    Gone,
}

/// What a socket waits for.
enum Event {
    /// The replica is going away.
    Stop,
    /// A time has come.
    Time,
    /// Something came from the client.
    Heard(Option<Result<Message, axum::Error>>),
    /// There is something to write.
    Given(Output),
}

impl Socket {
    async fn serve(mut self, first: String) {
        let transport = self.transport();
        metrics::joined(transport);
        let end = match self.send([Message::text(first)]).await {
            Ok(()) => self.attend().await,
            Err(end) => end,
        };
        if let End::Close(code, reason) = end {
            self.close(code, reason).await;
        }
        metrics::left(transport);
    }

    fn transport(&self) -> Transport {
        match self.dialect {
            Dialect::Frames => Transport::Ws,
            Dialect::Notify => Transport::Notify,
        }
    }

    async fn attend(&mut self) -> End {
        let mut heartbeat = Instant::now() + Duration::from_millis(HEARTBEAT_MS);
        let mut leave: Option<Instant> = None;
        loop {
            let silent = self.heard + Duration::from_millis(SILENCE_MS);
            let wake = [leave, self.expires].into_iter().flatten().fold(heartbeat.min(silent), Instant::min);
            let step = match self.event(leave.is_none(), wake).await {
                Event::Stop => {
                    leave = Some(Instant::now() + self.app.drain_delay());
                    Ok(())
                }
                Event::Time => {
                    let now = Instant::now();
                    if leave.is_some_and(|leave| now >= leave) {
                        return self.farewell().await;
                    }
                    if self.expires.is_some_and(|expires| now >= expires) {
                        return End::Close(
                            CloseCode::TOKEN_EXPIRED,
                            "the token has run out; come back with a fresh one",
                        );
                    }
                    if now >= silent {
                        // What came while this task was held up counts.
                        match self.socket.recv().now_or_never() {
                            Some(message) => self.hear(message).await,
                            None => return End::Close(CloseCode::SILENT, "nothing was heard for 60 s"),
                        }
                    } else {
                        heartbeat = now + Duration::from_millis(HEARTBEAT_MS);
                        self.heartbeat(true).await
                    }
                }
                Event::Heard(message) => self.hear(message).await,
                Event::Given(output) => self.write(output).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// What comes next. Time has the first word, and then each of the other two its turn, by chance: a client
    /// that says much, or a busy feed, puts off neither the end of a token nor a revocation nor a heartbeat.
    async fn event(&mut self, stays: bool, wake: Instant) -> Event {
        let (socket, feed) = (&mut self.socket, &mut self.feed);
        let either = async {
            tokio::select! {
                message = socket.recv() => Event::Heard(message),
                output = feed.next() => Event::Given(output),
            }
        };
        tokio::select! {
            biased;
            () = self.app.stop.cancelled(), if stays => Event::Stop,
            () = tokio::time::sleep_until(wake) => Event::Time,
            event = either => event,
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        self.heard = Instant::now();
        let message = match message {
            None => return Err(End::Gone),
            Some(Err(error)) => {
                if is_too_long(error) {
                    metrics::limit_reached(Limit::MessageBytes);
                }
                return Err(End::Gone);
            }
            Some(Ok(Message::Close(_))) => {
                // tungstenite has queued the answer; a flush sends it.
                let _ = timeout(CLOSE_TIMEOUT, self.socket.flush()).await;
                return Err(End::Gone);
            }
            Some(Ok(message)) => message,
        };
        // Pings too, and what this dialect does not listen to: each costs a wake-up, and a ping its answer.
        self.spend().await?;
        match message {
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => Ok(()),
            Message::Text(_) | Message::Binary(_) if self.dialect == Dialect::Notify => Ok(()),
            Message::Binary(_) => Err(End::Close(CloseCode::BAD_MESSAGE, "messages are JSON texts")),
            Message::Text(text) if text.len() > MESSAGE_MAX_BYTES => {
                metrics::limit_reached(Limit::MessageBytes);
                Err(End::Close(CloseCode::TOO_LARGE, "a message has at most 64 KiB"))
            }
            Message::Text(text) => self.hear_text(&text).await,
        }
    }

    /// The heartbeat, and on time a ping in the same write, which a browser answers by itself.
    async fn heartbeat(&mut self, ping: bool) -> Result<(), End> {
        let Some(cursor) = self.feed.cursor() else { return Ok(()) };
        let heartbeat = (self.dialect == Dialect::Frames)
            .then(|| Message::text(ServerMessage::Heartbeat { cursor: cursor.to_string() }.to_json()));
        let ping = ping.then(|| Message::Ping(bytes::Bytes::new()));
        self.send(heartbeat.into_iter().chain(ping)).await
    }

    async fn write(&mut self, output: Output) -> Result<(), End> {
        if let Some(code) = output.close {
            return Err(End::Close(code, output.close_reason()));
        }
        if self.dialect == Dialect::Notify {
            return self.send(notify::texts(&output).into_iter().map(Message::Text)).await;
        }
        self.send(output.texts().map(Message::Text)).await?;
        self.app.note_written(&self.feed, &output);
        metrics::sent(Transport::Ws, output.notifications);
        Ok(())
    }

    async fn say(&mut self, message: &ServerMessage) -> Result<(), End> {
        self.send([Message::text(message.to_json())]).await
    }

    /// Writes messages with as few writes as they need. What a socket does not take in time, it will
    /// get from history when it comes back.
    async fn send(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), End> {
        let socket = &mut self.socket;
        let writing = async {
            for message in messages {
                socket.feed(message).await?;
            }
            socket.flush().await
        };
        match timeout(WRITE_TIMEOUT, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => {
                Err(End::Close(CloseCode::SLOW, "what was written was not taken; resume from your cursor"))
            }
        }
    }

    /// Tells a reader of a replica that is going away when to come back.
    async fn farewell(&mut self) -> End {
        let reconnect_in_ms = fastrand::u64(0..crate::app::RECONNECT_MAX_MS);
        let told = match self.dialect {
            Dialect::Frames => self.say(&ServerMessage::Goodbye { reconnect_in_ms }).await,
            Dialect::Notify => Ok(()),
        };
        match told {
            Ok(()) => End::Close(CloseCode::DRAIN, "this replica is going away"),
            Err(end) => end,
        }
    }

    /// Sends the close frame and waits for its answer, so that the peer sees the code rather than a cut.
    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        metrics::closed(code);
        let frame = CloseFrame { code: code.0, reason: Utf8Bytes::from_static(reason) };
        let socket = &mut self.socket;
        let closing = async {
            socket.send(Message::Close(Some(frame))).await?;
            while let Some(Ok(_)) = socket.recv().await {}
            Ok::<_, axum::Error>(())
        };
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Whether reading ended since a message is longer than is read at all.
fn is_too_long(error: axum::Error) -> bool {
    matches!(error.into_inner().downcast_ref(), Some(tungstenite::Error::Capacity(_)))
}
