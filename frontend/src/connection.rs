//! Drives the client core of `protocol` with the browser's WebSocket, clock and random numbers. One task owns the
//! connection; there is never more than one socket, and frames of an old socket are dropped with it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use carillon_protocol::{Backoff, Client, ClientEvent, ClientMessage, CloseCode, Phase, Step};
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

/// Maximum commands that wait for the driver, which takes them at once.
pub const COMMANDS_MAX: usize = 64;
/// The longest timer, since browsers delay longer ones at will.
const TIMER_MAX_MS: u64 = 30_000;

/// A command of the page to the driver.
#[derive(Clone, Debug)]
pub enum Command {
    /// The device has a network again.
    Online,
    /// The device has lost its network.
    Offline,
    /// The page is visible again.
    Seen,
    /// A person requests to connect now.
    Connect,
    /// The credentials have changed: the socket is opened again.
    Reconnect,
    /// Sends a message to the server.
    Send(ClientMessage),
}

/// Where the driver starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the current position.
    Now,
    /// With earlier notifications: those after a cursor, or all of history.
    Before(Option<String>),
}

/// A report of the driver to the page.
#[derive(Debug)]
pub enum Report {
    /// The phase of the connection has changed.
    Phase(Phase),
    /// A frame brought this event.
    Event(ClientEvent),
    /// Earlier notifications; the socket is opened next, and brings the later ones.
    Filled(Past),
    /// Earlier notifications cannot be fetched; this is retried.
    NotFilled(Fault),
    /// The socket was closed, by the server with a code; `welcomed` unless it was never live.
    Closed {
        /// The code of the server.
        code: Option<CloseCode>,
        /// Whether it was live.
        welcomed: bool,
    },
}

enum Wake {
    Command(Command),
    Frame(Option<Result<Message, WebSocketError>>),
    Time,
    /// No more commands can arrive: the page is gone.
    End,
}

/// Connects, and stays connected, until the page is left or restarted. `access` returns the credentials of each attempt.
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
    let mut reported = client.phase().clone();
    loop {
        let step = client.step(now().ms, random());
        if *client.phase() != reported {
            reported = client.phase().clone();
            report(Report::Phase(reported.clone()));
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
                Wake::Command(command) => run_command(&mut client, &mut socket, command),
                Wake::Frame(frame) => take(&mut client, &mut socket, frame, &mut report),
                Wake::Time => {}
                Wake::End => return,
            },
        }
    }
}

/// Fetches earlier notifications, with retries, and returns the cursor after them; `None` when the page is gone.
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
                Wake::End => return None,
                Wake::Time if now().ms < until_ms => {}
                Wake::Command(Command::Send(_) | Command::Offline) => {}
                Wake::Command(_) | Wake::Time | Wake::Frame(_) => break,
            }
        }
    }
}

/// Returns the next event; commands come first.
async fn next(
    commands: &mut Receiver<Command>,
    socket: &mut Option<WebSocket>,
    until_ms: Option<u64>,
) -> Wake {
    let wait_ms = until_ms.map_or(TIMER_MAX_MS, |at| at.saturating_sub(now().ms)).min(TIMER_MAX_MS);
    let mut timer = TimeoutFuture::new(u32::try_from(wait_ms).unwrap_or(u32::MAX));
    let poll = |cx: &mut Context<'_>| {
        if let Poll::Ready(command) = Pin::new(&mut *commands).poll_next(cx) {
            return Poll::Ready(command.map_or(Wake::End, Wake::Command));
        }
        if let Some(socket) = socket
            && let Poll::Ready(frame) = socket.poll_next_unpin(cx)
        {
            return Poll::Ready(Wake::Frame(frame));
        }
        timer.poll_unpin(cx).map(|()| Wake::Time)
    };
    poll_fn(poll).await
}

fn run_command(client: &mut Client, socket: &mut Option<WebSocket>, command: Command) {
    match command {
        Command::Online => client.online(now().ms),
        Command::Offline => client.offline(),
        // A visible page reconnects at once.
        Command::Seen if matches!(client.phase(), Phase::Waiting { .. }) => client.connect_now(now().ms),
        Command::Seen => {}
        Command::Connect => client.connect_now(now().ms),
        Command::Reconnect => {
            if socket.take().is_some() {
                client.closed(now().ms, None, 0.0);
            }
            client.connect_now(now().ms);
        }
        Command::Send(message) => {
            let live = matches!(client.phase(), Phase::Live { .. });
            if let Some(socket) = socket.as_mut().filter(|_| live) {
                // A browser's socket accepts every message at once; a lost message is sent again on the next connection.
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
        Some(Ok(Message::Text(text))) => report(Report::Event(client.text(now().ms, &text))),
        Some(Ok(Message::Bytes(_))) => client.alive(now().ms),
        Some(Err(WebSocketError::ConnectionClose(close))) => {
            *socket = None;
            closed(client, Some(CloseCode(close.code)), report);
        }
        // An error event has no details, and a close event follows it.
        Some(Err(_)) => {}
        None => {
            *socket = None;
            closed(client, None, report);
        }
    }
}

/// A device that reports no network is believed only when connecting has failed: a server on the same machine is still
/// reachable.
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

/// Opens a socket on the origin of the page. Secrets go into the subprotocols, since addresses are logged.
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
