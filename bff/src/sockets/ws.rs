mod command;
mod counted;
mod hello;
mod notify;
mod upgrade;

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use carillon_protocol::limits::{ENTRY_MAX_BYTES, SILENCE_MS};
use carillon_protocol::received::Goodbye;
use carillon_protocol::{CloseCode, ServerMessage};
use carillon_service::WRITE_TIMEOUT;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use crate::delivery::feed::{Feed, Output};
use crate::gate::caller::{Caller, since};
use crate::limits::budget::Permit;
use crate::limits::rate::Bucket;
use crate::metrics::{self, Limit, Transport};
use crate::refusal::Refusal;
use crate::sockets::readers::Readers;
use crate::sockets::visit::{Visit, VisitEvent};
use counted::Fault;
pub(crate) use upgrade::{Upgrade, WebSocket, upgrade_of};

/// Size of a socket's read buffer. The library's default of 128 KiB is allocated for every socket.
const READ_BUFFER_BYTES: usize = 1_024;
/// Frames are buffered up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 1_024;
/// Maximum bytes that wait to be written: more than the largest frame, in which each byte may have become `\u0000`.
const WRITE_BUFFER_MAX_BYTES: usize = 8 * ENTRY_MAX_BYTES;
/// Maximum bytes that are handed to a socket before it has to take them. A larger frame is charged to the budget of pages.
pub(crate) const WRITE_CHUNK_BYTES: usize = 8 * 1_024;
/// Maximum bytes of a message from a client. A longer one closes the connection with 1009.
const MESSAGE_MAX_BYTES: usize = ENTRY_MAX_BYTES;
/// Maximum bytes of unfinished messages from all sockets.
pub(crate) const UNFINISHED_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Maximum time to write a close frame and to wait for its answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// `GET /ws`
pub(crate) async fn upgrade(State(readers): State<Readers>, request: Request) -> Response {
    open(readers, request).await.unwrap_or_else(Refusal::into_response_counted)
}

async fn open(readers: Readers, request: Request) -> Result<Response, Refusal> {
    let (mut parts, _) = request.into_parts();
    if hello::is_expected(&parts) {
        return hello::upgrade(readers, parts).await;
    }
    let caller = readers.gate.caller(&parts).await?;
    let upgrade = upgrade_of(&mut parts)?;
    let (feed, welcome) = readers.join(&caller, since(&parts)).await?;
    let welcome = ServerMessage::Welcome(welcome).to_json();
    Ok(accept(upgrade, readers, caller, feed, Dialect::Frames, welcome))
}

/// The messages that a socket sends and understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Frames with a `type`, in both directions.
    Frames,
    /// The messages of the older system notify, whose clients send nothing.
    Notify,
}

impl Dialect {
    fn transport(self) -> Transport {
        match self {
            Self::Frames => Transport::Ws,
            Self::Notify => Transport::Notify,
        }
    }
}

/// Upgrades the request and serves a reader on its socket. `first` is the first message.
pub(crate) fn accept(
    upgrade: Upgrade,
    readers: Readers,
    caller: Caller,
    feed: Feed,
    dialect: Dialect,
    first: String,
) -> Response {
    let (open, unfinished, network) = (readers.open.clone(), readers.unfinished.clone(), caller.network);
    upgrade.serve(&open, &unfinished, network, move |socket| {
        Socket::new(socket, readers, caller, feed, dialect).serve(first)
    })
}

/// One reader on a WebSocket. One task owns it: it writes, reads and keeps the time.
struct Socket {
    socket: WebSocket,
    dialect: Dialect,
    visit: Visit,
    caller: Box<Caller>,
    /// When the last message of the client arrived.
    last_received: Instant,
    messages: Bucket,
}

/// Why a socket ends.
enum End {
    /// Close it with this code.
    Close(CloseCode, &'static str),
    /// It is already closed or broken.
    Gone,
}

impl Socket {
    fn new(socket: WebSocket, readers: Readers, caller: Caller, feed: Feed, dialect: Dialect) -> Self {
        let expires_at_ms = caller.identity.as_ref().map(|identity| identity.expires_at_ms);
        let visit = Visit::new(readers, feed, expires_at_ms, dialect.transport());
        let (caller, now) = (Box::new(caller), Instant::now());
        Self { socket, dialect, visit, caller, last_received: now, messages: Bucket::full(now) }
    }

    async fn serve(mut self, first: String) {
        let end = match self.send([Message::text(first)], false).await {
            Ok(()) => self.run().await,
            Err(end) => end,
        };
        if let End::Close(code, reason) = end {
            close(&mut self.socket, code, reason).await;
        }
    }

    /// Timers are checked first; incoming messages and outgoing frames then compete fairly. So neither a client that sends
    /// many messages nor a busy feed delays the expiry of a token, a revocation or a heartbeat.
    async fn run(&mut self) -> End {
        loop {
            let step = match self.visit.due_event() {
                Some(event) => self.handle(event).await,
                None if Instant::now() >= self.silent_at() => {
                    // A message that arrived while this task was delayed still counts.
                    match self.socket.next().now_or_never() {
                        Some(message) => self.receive(message).await,
                        None => return End::Close(CloseCode::SILENT, "nothing was received for 60 s"),
                    }
                }
                None => self.step().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        let silent_at = self.silent_at();
        tokio::select! {
            message = self.socket.next() => self.receive(message).await,
            event = self.visit.next() => self.handle(event).await,
            () = tokio::time::sleep_until(silent_at) => Ok(()),
        }
    }

    fn silent_at(&self) -> Instant {
        self.last_received + Duration::from_millis(SILENCE_MS)
    }

    async fn handle(&mut self, event: VisitEvent) -> Result<(), End> {
        match event {
            VisitEvent::Output(output) => self.write(output).await,
            VisitEvent::Heartbeat(_) => self.heartbeat(true).await,
            VisitEvent::Goodbye(reconnect_in_ms) => {
                if self.dialect == Dialect::Frames {
                    self.send_message(&ServerMessage::Goodbye(Goodbye { reconnect_in_ms })).await?;
                }
                Err(DRAINING)
            }
            VisitEvent::End(code, reason) => Err(End::Close(code, reason)),
        }
    }

    async fn receive(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Result<(), End> {
        self.last_received = Instant::now();
        let message = match message {
            None => return Err(End::Gone),
            Some(Err(error)) => return Err(ended_by(&error)),
            Some(Ok(Message::Close(_))) => {
                // tungstenite has queued the answer, and a flush sends it.
                let _ = timeout(CLOSE_TIMEOUT, self.socket.flush()).await;
                return Err(End::Gone);
            }
            Some(Ok(message)) => message,
        };
        // Pings and messages that this dialect ignores count too: each costs a wake-up, and a ping costs a pong.
        self.spend().await?;
        match message {
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(()),
            Message::Text(_) | Message::Binary(_) if self.dialect == Dialect::Notify => Ok(()),
            Message::Binary(_) => Err(End::Close(CloseCode::BAD_MESSAGE, "messages are JSON in text frames")),
            Message::Text(text) => self.receive_text(&text).await,
        }
    }

    /// Sends a heartbeat, with a ping in the same write when the timer sent it. A browser answers the ping by itself.
    async fn heartbeat(&mut self, ping: bool) -> Result<(), End> {
        let Some(cursor) = self.visit.feed.cursor() else { return Ok(()) };
        let heartbeat = (self.dialect == Dialect::Frames)
            .then(|| Message::text(ServerMessage::heartbeat(cursor.to_string()).to_json()));
        let ping = ping.then(|| Message::Ping(bytes::Bytes::new()));
        self.send(heartbeat.into_iter().chain(ping), false).await
    }

    async fn write(&mut self, output: Output) -> Result<(), End> {
        if self.dialect == Dialect::Notify {
            let texts = notify::texts(&output);
            return self.send(texts.into_iter().map(Message::Text), output.is_charged()).await;
        }
        self.send(output.texts().map(Message::Text), output.is_charged()).await?;
        self.visit.written(&output);
        Ok(())
    }

    async fn send_message(&mut self, message: &ServerMessage) -> Result<(), End> {
        self.send([Message::text(message.to_json())], false).await
    }

    /// Writes messages with few writes, and hands over the next ones when the socket has taken those before. A reader whose
    /// socket does not take them in time reads them from history after a reconnect. Messages of a page are charged already.
    async fn send(
        &mut self,
        messages: impl IntoIterator<Item = Message>,
        is_charged: bool,
    ) -> Result<(), End> {
        let (socket, feed) = (&mut self.socket, &self.visit.feed);
        let pages = self.visit.readers.feeds.pages();
        let limit = WRITE_TIMEOUT;
        let writing = async {
            let (mut waiting, mut permit): (usize, Option<Permit>) = (0, None);
            for message in messages {
                let bytes = length(&message);
                if waiting > 0 && waiting + bytes > WRITE_CHUNK_BYTES {
                    socket.flush().await.map_err(|_| End::Gone)?;
                    (waiting, permit) = (0, None);
                }
                if bytes > WRITE_CHUNK_BYTES && !is_charged {
                    // Without the budget, large unread frames would fill the replica's memory.
                    permit = pages.budget().take(bytes, feed.network(), limit).await;
                    if permit.is_none() {
                        return Err(SLOW);
                    }
                }
                waiting += bytes;
                socket.feed(message).await.map_err(|_| End::Gone)?;
            }
            socket.flush().await.map_err(|_| End::Gone)?;
            drop(permit);
            Ok(())
        };
        timeout(limit, writing).await.unwrap_or(Err(SLOW))
    }
}

const DRAINING: End = End::Close(CloseCode::DRAIN, "replica shutting down");
const TOO_MANY: End = End::Close(CloseCode::LIMIT, "too many messages");
const SLOW: End = End::Close(CloseCode::SLOW, "the connection read too slowly; resume from your cursor");

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) | Message::Frame(_) => 0,
    }
}

/// Sends the close frame and waits for its answer, so that the peer receives the code and not a reset.
async fn close(socket: &mut WebSocket, code: CloseCode, reason: &'static str) {
    metrics::closed(code);
    let frame = CloseFrame { code: code.0.into(), reason: Utf8Bytes::from_static(reason) };
    let closing = async {
        socket.send(Message::Close(Some(frame))).await?;
        while let Some(Ok(_)) = socket.next().await {}
        // After a read error, the answer lies behind unread bytes.
        socket.get_mut().drain(CLOSE_TIMEOUT).await;
        Ok::<_, tungstenite::Error>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}

/// Returns how a socket ends after a read error.
fn ended_by(error: &tungstenite::Error) -> End {
    match Fault::of(error) {
        Some(Fault::TooLong) => {
            metrics::limit_reached(Limit::MessageBytes);
            End::Close(CloseCode::TOO_LARGE, "a message has at most 64 KiB")
        }
        Some(Fault::NoRoom) => {
            metrics::limit_reached(Limit::UnfinishedBytes);
            End::Close(CloseCode::TRY_LATER, "too many unfinished messages on this replica")
        }
        Some(Fault::TooMany) => {
            metrics::limit_reached(Limit::Messages);
            End::Close(CloseCode::LIMIT, "too many fragments")
        }
        None => End::Gone,
    }
}
