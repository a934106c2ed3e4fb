//! The port: takes connections, hands their requests to a router, and gives up on peers that neither ask nor take.

mod placed;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use carillon_service::parse_duration;
use clap::Args;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::metrics::{self, Limit};
use crate::reply::Refusal;
use placed::Placed;

/// Connections that are open beside those of readers: requests, and what waits for the next one.
pub const PLAIN_CONNECTIONS_MAX: usize = 1_024;
/// After the stop, readers have this long to be let go.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(8);
/// And what is then still open has this long before it is cut.
const CUT_AFTER: Duration = Duration::from_secs(1);
/// A connection that has asked before may wait this long until it has asked again. Proxies keep theirs for up to
/// two minutes; if this side closed first, it could be just when one sends what it cannot send twice.
const IDLE_TIMEOUT: Duration = Duration::from_secs(150);

/// How long a peer is waited for.
#[derive(Args, Clone, Copy, Debug)]
pub struct Patience {
    /// How long a connection has for its first request, and a request to /api until its answer
    #[arg(long, env, value_parser = parse_duration, default_value = "15s")]
    pub request_timeout: Duration,
    /// How long a peer may take nothing of what was written to it
    #[arg(long, env, value_parser = parse_duration, default_value = "30s")]
    pub unread_timeout: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(15), unread_timeout: Duration::from_secs(30) }
    }
}

/// Serves a router until `stop`, and then until the last of `readers` is let go, but not for ever. New
/// connections are taken, and refused readably, until then. While `connections_max` are open, WebSockets
/// included, the next one waits in the kernel.
///
/// # Errors
/// None: it is a task of the service as others are.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    patience: Patience,
    connections_max: usize,
    stop: CancellationToken,
    readers: TaskTracker,
) -> anyhow::Result<()> {
    let connections = TaskTracker::new();
    let drained = CancellationToken::new();
    let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    let taking = async {
        while let Some(place) = take_place(&places).await {
            let (stream, peer) = Listener::accept(&mut listener).await;
            let router = router.clone();
            connections.spawn(connection(stream, place, peer, router, patience, drained.clone()));
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

/// A place for a connection, once there is one. The semaphore is never closed.
async fn take_place(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    metrics::limit_reached(Limit::Connections);
    Arc::clone(places).acquire_owned().await.ok()
}

/// Serves one connection until it ends or becomes a WebSocket.
async fn connection(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    peer: SocketAddr,
    router: Router,
    patience: Patience,
    drained: CancellationToken,
) {
    set_options(&stream, patience.unread_timeout);
    let asked = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&asked);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        asks.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
    let mut serving =
        pin!(http.serve_connection(TokioIo::new(Placed::new(stream, place)), service).with_upgrades());
    let mut first = pin!(tokio::time::sleep(patience.request_timeout));
    let (mut in_time, mut draining) = (false, false);
    loop {
        tokio::select! {
            served = serving.as_mut() => {
                if served.is_err_and(|error| is_unread(&error)) {
                    metrics::limit_reached(Limit::Unread);
                }
                return;
            }
            () = first.as_mut(), if !in_time => {
                in_time = asked.load(Ordering::Relaxed);
                if !in_time {
                    metrics::limit_reached(Limit::RequestTime);
                    return;
                }
            }
            () = drained.cancelled(), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Gives up on a request whose body, or whose answer, takes too long.
pub(crate) async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            metrics::limit_reached(Limit::RequestTime);
            let detail = format!("a request is to be sent, and can be answered, within {limit:?}");
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "too slow", detail).into_response()
        }
    }
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
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
}
