//! The port: takes connections, hands their requests to a router, and gives up on peers that neither ask nor take.

mod pace;
mod places;
mod refused;
mod stream;
mod unread;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{StatusCode, header};
use axum::response::Response;
use clap::Args;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

pub use pace::WRITE_TIMEOUT;
pub use places::{CONNECTIONS_PER_ADDRESS_MAX, PlaceOptions, PortLimit};
use places::{Over, Phase, Place, Places};
use refused::Told;
use stream::{Answer, Placed};
use unread::Asked;

use crate::parse_duration;

/// After the stop, readers have this long to be let go.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(8);
/// And what is then still open has this long before it is cut.
const CUT_AFTER: Duration = Duration::from_secs(1);
/// The head of a request has at most this many bytes. A longer one is a 431.
const HEAD_MAX_BYTES: usize = 32 * 1024;
/// A port shows this often that it takes connections.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// Where the system gives no connection, it is asked again after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// A wait that something else ends.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a peer is waited for.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Times")]
pub struct Patience {
    /// Time for the head of a request to arrive, and for a request to /api from then until its answer
    #[arg(long, env, value_parser = parse_duration, default_value = "15s")]
    pub request_timeout: Duration,
    /// Time after which a peer that reads nothing of what was written to it is disconnected
    #[arg(long, env, value_parser = parse_duration, default_value = "30s")]
    pub unread_timeout: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(15), unread_timeout: Duration::from_secs(30) }
    }
}

/// Serves a router until `stop`, and then until the last of `readers` is let go, but not for ever. New
/// connections are taken, and refused readably, until then. For one that has no place, the oldest that has nothing to do
/// is closed, or it is told.
///
/// # Errors
/// None: it is a task of the service as others are.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    patience: Patience,
    options: PlaceOptions,
    stop: CancellationToken,
    readers: TaskTracker,
) -> anyhow::Result<()> {
    let (connections, drained, told) = (TaskTracker::new(), CancellationToken::new(), Told::new());
    let room = options.room.clone();
    let places = Places::new(options);
    let taking = async {
        let mut failing = false;
        let mut show = tokio::time::interval(ROOM_EVERY);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = show.tick() => {
                    if !failing && places.has_room() {
                        room.iter().for_each(|room| room.set(true));
                    }
                    failing = false;
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => match places.take(peer.ip()) {
                    Ok(place) => {
                        let router = router.clone();
                        connections.spawn(connection(stream, place, peer, router, patience, drained.clone()));
                    }
                    Err(why) => {
                        told.tell(stream, why).map(|telling| connections.spawn(telling));
                    }
                },
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "the system gives no connection");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    };
    let draining = async {
        stop.cancelled().await;
        readers.close();
        let _ = tokio::time::timeout(DRAIN_DEADLINE, readers.wait()).await;
    };
    tokio::select! {
        () = draining => {}
        () = taking => {}
    }
    drop(listener);
    drained.cancel();
    connections.close();
    let _ = tokio::time::timeout(CUT_AFTER, connections.wait()).await;
    Ok(())
}

/// Whether the fault is of a peer that is gone already.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

/// Serves one connection until it ends or becomes a WebSocket.
async fn connection(
    stream: TcpStream,
    place: Place,
    peer: SocketAddr,
    router: Router,
    patience: Patience,
    drained: CancellationToken,
) {
    set_options(&stream, patience.unread_timeout);
    let place = Arc::new(place);
    let of_requests = Arc::clone(&place);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let place = Arc::clone(&of_requests);
        place.set(Phase::Busy);
        let mut request = request.map(|body| Asked::new(body, Arc::clone(&place)));
        request.extensions_mut().insert(ConnectInfo(peer));
        let answering = router.clone().oneshot(request);
        async move { answering.await.map(|response| placed(response, place)) }
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_MAX_BYTES);
    let placed = Placed::new(stream, Arc::clone(&place));
    let mut serving = pin!(http.serve_connection(TokioIo::new(placed), service).with_upgrades());
    let mut draining = false;
    loop {
        let until = match place.deadline(patience.request_timeout) {
            Ok(until) => until.unwrap_or_else(|| Instant::now() + FAR),
            Err(over) => {
                match over {
                    Over::Slow => place.limit_reached(PortLimit::RequestTime),
                    Over::NotTaken => place.limit_reached(PortLimit::Slow),
                    Over::Closed => {}
                }
                return;
            }
        };
        tokio::select! {
            served = serving.as_mut() => {
                if served.is_err_and(|error| is_unread(&error)) {
                    place.limit_reached(PortLimit::Unread);
                }
                return;
            }
            () = place.changed() => {}
            () = sleep_until(until) => {}
            () = drained.cancelled(), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Notes what the connection becomes by an answer: a reader's, which has bounds of its own, or one that waits again when
/// the answer is written.
fn placed(response: Response, place: Arc<Place>) -> Response {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        place.set(Phase::Reader);
        return response;
    }
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes() == b"text/event-stream") {
        place.set(Phase::Reader);
    }
    response.map(|body| Body::new(Answer::new(body, place)))
}

/// What cannot be set is done without.
fn set_options(stream: &TcpStream, unread: Duration) {
    // Frames are small and wanted now: no waiting for more to send.
    let _ = stream.set_nodelay(true);
    // The kernel resets a connection whose peer takes nothing, or is gone without a word. Nothing here has to
    // wake up for it, also while nothing is to be written.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(unread));
    #[cfg(not(target_os = "linux"))]
    let _ = unread;
}

/// Whether a connection ended since its peer took nothing.
fn is_unread(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
}
