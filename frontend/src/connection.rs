//! Drives the client core of `protocol` with a browser's socket, clocks and dice. One task owns the
//! connection; there is never more than one socket, and what an old one still says is dropped with it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use carillon_protocol::{Client, CloseCode, Heard, Phase, Step};
use futures_channel::mpsc::Receiver;
use futures_util::{FutureExt, Stream, StreamExt};
use gloo_net::websocket::{Message, WebSocketError, futures::WebSocket};
use gloo_timers::future::TimeoutFuture;
use leptos::prelude::{location, window};

use crate::clock::now;

/// Commands that may wait for the driver; it takes them at once, so that more are never there.
pub const COMMANDS_MAX: usize = 8;
/// It looks at the clock at least this often: browsers stretch longer timers at will.
const LOOK_EVERY_MS: u64 = 30_000;

/// What the page tells the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The device has a network again.
    Online,
    /// The device has lost its network.
    Offline,
    /// The page is looked at again.
    Seen,
    /// A person asks to connect now.
    Connect,
}

/// What the driver tells the page.
#[derive(Debug)]
pub enum Report {
    /// Where the connection stands, when that has changed.
    Phase(Phase),
    /// What a frame meant.
    Heard(Heard),
}

enum Happening {
    Command(Command),
    Frame(Option<Result<Message, WebSocketError>>),
    Time,
    /// Nobody can send commands any more: the page is gone.
    End,
}

/// Connects, and stays connected, until the page goes.
pub async fn drive(mut commands: Receiver<Command>, mut report: impl FnMut(Report)) {
    let mut client = Client::new(None);
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
            Step::Open { since } => {
                drop(socket.take());
                socket = WebSocket::open(&address(since.as_deref())).ok();
                if socket.is_none() {
                    closed(&mut client, None);
                }
            }
            Step::Wait { until_ms } => match next(&mut commands, &mut socket, until_ms).await {
                Happening::Command(command) => obey(&mut client, command),
                Happening::Frame(frame) => take(&mut client, &mut socket, frame, &mut report),
                Happening::Time => {}
                Happening::End => return,
            },
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

fn obey(client: &mut Client, command: Command) {
    match command {
        Command::Online => client.online(now().ms),
        Command::Offline => client.offline(),
        // Whoever looks at the page should not watch it wait.
        Command::Seen if matches!(client.phase(), Phase::Waiting { .. }) => client.connect_now(now().ms),
        Command::Seen => {}
        Command::Connect => client.connect_now(now().ms),
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
            closed(client, Some(CloseCode(close.code)));
        }
        // An error says nothing, and a close follows it.
        Some(Err(_)) => {}
        None => {
            *socket = None;
            closed(client, None);
        }
    }
}

/// A device that says it has no network is believed only when connecting has failed: a server on the
/// same machine is there all the same.
fn closed(client: &mut Client, code: Option<CloseCode>) {
    client.closed(now().ms, code, random());
    if !window().navigator().on_line() {
        client.offline();
    }
}

fn random() -> f64 {
    js_sys::Math::random()
}

/// The socket's address on the origin that the page came from.
fn address(since: Option<&str>) -> String {
    let location = location();
    let scheme = if location.protocol().is_ok_and(|scheme| scheme == "https:") { "wss" } else { "ws" };
    let host = location.host().unwrap_or_default();
    match since {
        None => format!("{scheme}://{host}/ws"),
        Some(cursor) => format!("{scheme}://{host}/ws?since={}", js_sys::encode_uri_component(cursor)),
    }
}
