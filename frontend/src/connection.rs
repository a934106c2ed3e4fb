//! Drives the client core of `protocol` with a browser's socket, clocks and dice. One task owns the
//! connection; there is never more than one socket, and what an old one still says is dropped with it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use carillon_protocol::{Backoff, Client, ClientMessage, CloseCode, Heard, Phase, Step};
use futures_channel::mpsc::Receiver;
use futures_util::{FutureExt, SinkExt, Stream, StreamExt};
use gloo_net::websocket::{Message, WebSocketError, futures::WebSocket};
use gloo_timers::future::TimeoutFuture;
use leptos::prelude::{location, window};

use crate::access::Access;
use crate::clock::now;
use crate::history;
use crate::http::Fault;
use crate::inbox::Past;

/// Commands that may wait for the driver; it takes them at once, so that more are never there.
pub const COMMANDS_MAX: usize = 64;
/// It looks at the clock at least this often: browsers stretch longer timers at will.
const LOOK_EVERY_MS: u64 = 30_000;

/// What the page tells the driver.
#[derive(Clone, Debug)]
pub enum Command {
    /// The device has a network again.
    Online,
    /// The device has lost its network.
    Offline,
    /// The page is looked at again.
    Seen,
    /// A person asks to connect now.
    Connect,
    /// The server is to know the page by another name: the socket is opened anew.
    Reconnect,
    /// Tells the server something.
    Say(ClientMessage),
}

/// From where the driver goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// From now.
    Now,
    /// With what came before: after a cursor, or from the beginning of history.
    Before(Option<String>),
}

/// What the driver tells the page.
#[derive(Debug)]
pub enum Report {
    /// Where the connection stands, when that has changed.
    Phase(Phase),
    /// What a frame meant.
    Heard(Heard),
    /// What came before; the socket is opened next, and brings what follows.
    Filled(Past),
    /// What came before cannot be had, and is asked for again.
    NotFilled(Fault),
    /// The socket was closed, by the server with a code; `welcomed` unless it was never live.
    Closed {
        /// What the server said.
        code: Option<CloseCode>,
        /// Whether it was live.
        welcomed: bool,
    },
}

enum Happening {
    Command(Command),
    Frame(Option<Result<Message, WebSocketError>>),
    Time,
    /// Nobody can send commands any more: the page is gone.
    End,
}

/// Connects, and stays connected, until the page goes or begins anew. What it shows the server is asked
/// for each time.
pub async fn drive(
    mut commands: Receiver<Command>,
    start: Start,
    access: impl Fn() -> Access,
    mut report: impl FnMut(Report),
) {
    let since = match start {
        Start::Now => None,
        Start::Before(since) => match fill(&mut commands, since, &access, &mut report).await {
            Some(next) => Some(next),
            None => return,
        },
    };
    let mut client = Client::new(since);
    let mut socket: Option<WebSocket> = None;
    let mut told = client.phase().clone();
    loop {
        let step = client.step(now().ms, random());
        if *client.phase() != told {
            told = client.phase().clone();
            report(Report::Phase(told.clone()));
        }
        match step {
            Step::Drop => socket = None,
            Step::Open { since, topics } => {
                drop(socket.take());
                socket = open(since.as_deref(), &topics, &access());
                if socket.is_none() {
                    closed(&mut client, None, &mut report);
                }
            }
            Step::Wait { until_ms } => match next(&mut commands, &mut socket, until_ms).await {
                Happening::Command(command) => obey(&mut client, &mut socket, command),
                Happening::Frame(frame) => take(&mut client, &mut socket, frame, &mut report),
                Happening::Time => {}
                Happening::End => return,
            },
        }
    }
}

/// Reads what came before, for as long as it takes, and tells where that ends; `None` when the page is gone.
async fn fill(
    commands: &mut Receiver<Command>,
    since: Option<String>,
    access: &impl Fn() -> Access,
    report: &mut impl FnMut(Report),
) -> Option<String> {
    let mut backoff = Backoff::default();
    loop {
        report(Report::Phase(Phase::Connecting { since_ms: now().ms }));
        match history::read(&access(), since.clone()).await {
            Ok(past) => {
                let next = past.next.clone();
                report(Report::Filled(past));
                return Some(next);
            }
            Err(fault) => report(Report::NotFilled(fault)),
        }
        let until_ms = now().ms + backoff.next_ms(random());
        report(Report::Phase(Phase::Waiting { until_ms }));
        loop {
            match next(commands, &mut None, Some(until_ms)).await {
                Happening::End => return None,
                Happening::Time if now().ms < until_ms => {}
                Happening::Command(Command::Say(_) | Command::Offline) => {}
                Happening::Command(_) | Happening::Time | Happening::Frame(_) => break,
            }
        }
    }
}

/// The next thing that happens: what a person or the device says comes first.
async fn next(
    commands: &mut Receiver<Command>,
    socket: &mut Option<WebSocket>,
    until_ms: Option<u64>,
) -> Happening {
    let wait_ms = until_ms.map_or(LOOK_EVERY_MS, |at| at.saturating_sub(now().ms)).min(LOOK_EVERY_MS);
    let mut timer = TimeoutFuture::new(u32::try_from(wait_ms).unwrap_or(u32::MAX));
    let poll = |cx: &mut Context<'_>| {
        if let Poll::Ready(command) = Pin::new(&mut *commands).poll_next(cx) {
            return Poll::Ready(command.map_or(Happening::End, Happening::Command));
        }
        if let Some(socket) = socket
            && let Poll::Ready(frame) = socket.poll_next_unpin(cx)
        {
            return Poll::Ready(Happening::Frame(frame));
        }
        timer.poll_unpin(cx).map(|()| Happening::Time)
    };
    poll_fn(poll).await
}

fn obey(client: &mut Client, socket: &mut Option<WebSocket>, command: Command) {
    match command {
        Command::Online => client.online(now().ms),
        Command::Offline => client.offline(),
        // Whoever looks at the page should not watch it wait.
        Command::Seen if matches!(client.phase(), Phase::Waiting { .. }) => client.connect_now(now().ms),
        Command::Seen => {}
        Command::Connect => client.connect_now(now().ms),
        Command::Reconnect => {
            if socket.take().is_some() {
                client.closed(now().ms, None, 0.0);
            }
            client.connect_now(now().ms);
        }
        Command::Say(message) => {
            let live = matches!(client.phase(), Phase::Live { .. });
            if let Some(socket) = socket.as_mut().filter(|_| live) {
                // A browser's socket takes everything at once; what it refuses is lost with the connection,
                // and said again on the next.
                drop(socket.send(Message::Text(message.to_json())).now_or_never());
            }
        }
    }
}

fn take(
    client: &mut Client,
    socket: &mut Option<WebSocket>,
    frame: Option<Result<Message, WebSocketError>>,
    report: &mut impl FnMut(Report),
) {
    match frame {
        Some(Ok(Message::Text(text))) => report(Report::Heard(client.text(now().ms, &text))),
        Some(Ok(Message::Bytes(_))) => client.alive(now().ms),
        Some(Err(WebSocketError::ConnectionClose(close))) => {
            *socket = None;
            closed(client, Some(CloseCode(close.code)), report);
        }
        // An error says nothing, and a close follows it.
        Some(Err(_)) => {}
        None => {
            *socket = None;
            closed(client, None, report);
        }
    }
}

/// A device that says it has no network is believed only when connecting has failed: a server on the
/// same machine is there all the same.
fn closed(client: &mut Client, code: Option<CloseCode>, report: &mut impl FnMut(Report)) {
    let welcomed = matches!(client.phase(), Phase::Live { .. });
    client.closed(now().ms, code, random());
    if !window().navigator().on_line() {
        client.offline();
    }
    report(Report::Closed { code, welcomed });
}

fn random() -> f64 {
    js_sys::Math::random()
}

/// Opens a socket on the origin that the page came from. Secrets go into the subprotocols: addresses are logged.
fn open(since: Option<&str>, topics: &[String], access: &Access) -> Option<WebSocket> {
    let (address, names) = (address(since, topics), access.subprotocols());
    let opened = if names.is_empty() {
        WebSocket::open(&address)
    } else {
        WebSocket::open_with_protocols(&address, &names)
    };
    opened.ok()
}

fn address(since: Option<&str>, topics: &[String]) -> String {
    let location = location();
    let scheme = if location.protocol().is_ok_and(|scheme| scheme == "https:") { "wss" } else { "ws" };
    let host = location.host().unwrap_or_default();
    let topics = topics.iter().map(|topic| ("topic", topic.as_str()));
    let query: Vec<_> = since
        .map(|since| ("since", since))
        .into_iter()
        .chain(topics)
        .map(|(name, value)| format!("{name}={}", String::from(js_sys::encode_uri_component(value))))
        .collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{scheme}://{host}/ws{mark}{}", query.join("&"))
}
