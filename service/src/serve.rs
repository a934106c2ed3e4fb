//! The port: accepts connections, passes their requests to a router, and closes connections that neither send a request nor
//! read the response.

mod connections;
mod pace;
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

pub use connections::{CONNECTIONS_PER_ADDRESS_MAX, ConnectionOptions, PortLimit};
use connections::{ConnectionPermit, Connections, Expired, Phase};
pub use pace::WRITE_TIMEOUT;
use refused::Responder;
use stream::{PermittedStream, ResponseBody};
use unread::RequestBody;

use crate::parse_duration;

/// The time after the stop within which readers are closed.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(8);
/// The time after that before open connections are cut.
const CUT_AFTER: Duration = Duration::from_secs(1);
/// Maximum bytes of the head of a request; a longer one gets a 431.
const HEAD_MAX_BYTES: usize = 32 * 1024;
/// The interval at which a port reports that it accepts connections.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// The pause after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
/// A wait that another event ends first.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// The timeouts for slow peers.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Times")]
pub struct Timeouts {
    /// Time for the head of a request to arrive, and for a request to /api from then until its answer
    #[arg(long, env, value_parser = parse_duration, default_value = "15s")]
    pub request_timeout: Duration,
    /// Time after which a peer that reads nothing of what was written to it is disconnected
    #[arg(long, env, value_parser = parse_duration, default_value = "30s")]
    pub unread_timeout: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { request_timeout: Duration::from_secs(15), unread_timeout: Duration::from_secs(30) }
    }
}

/// Serves a router until `stop`, and then until the last of `readers` is closed or a deadline. Until then, new connections
/// are accepted and get a readable refusal. When there is no room for one, the oldest idle connection is closed, or the new
/// one gets a response and is closed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    timeouts: Timeouts,
    options: ConnectionOptions,
    stop: CancellationToken,
    readers: TaskTracker,
) -> anyhow::Result<()> {
    let (connections, drained, responder) = (TaskTracker::new(), CancellationToken::new(), Responder::new());
    let room = options.room.clone();
    let permits = Connections::new(options);
    let taking = async {
        let mut failing = false;
        let mut show = tokio::time::interval(ROOM_EVERY);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = show.tick() => {
                    if !failing && permits.has_room() {
                        room.iter().for_each(|room| room.set(true));
                    }
                    failing = false;
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => match permits.take(peer.ip()) {
                    Ok(permit) => {
                        let router = router.clone();
                        connections.spawn(connection(
                            stream,
                            permit,
                            peer,
                            router,
                            timeouts,
                            drained.clone(),
                        ));
                    }
                    Err(why) => {
                        responder.respond(stream, why).map(|responding| connections.spawn(responding));
                    }
                },
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "cannot accept a connection");
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

/// Whether the error is of one connection only, whose peer is gone.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

/// Serves one connection until it ends or becomes a WebSocket.
async fn connection(
    stream: TcpStream,
    permit: ConnectionPermit,
    peer: SocketAddr,
    router: Router,
    timeouts: Timeouts,
    drained: CancellationToken,
) {
    set_options(&stream, timeouts.unread_timeout);
    let permit = Arc::new(permit);
    let of_requests = Arc::clone(&permit);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let permit = Arc::clone(&of_requests);
        permit.set(Phase::Busy);
        let mut request = request.map(|body| RequestBody::new(body, Arc::clone(&permit)));
        request.extensions_mut().insert(ConnectInfo(peer));
        let answering = router.clone().oneshot(request);
        async move { answering.await.map(|response| with_phase(response, permit)) }
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(HEAD_MAX_BYTES);
    let stream = PermittedStream::new(stream, Arc::clone(&permit));
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let mut draining = false;
    loop {
        let until = match permit.deadline(timeouts.request_timeout) {
            Ok(until) => until.unwrap_or_else(|| Instant::now() + FAR),
            Err(over) => {
                match over {
                    Expired::Slow => permit.limit_reached(PortLimit::RequestTime),
                    Expired::Unread => permit.limit_reached(PortLimit::Slow),
                    Expired::Closed => {}
                }
                return;
            }
        };
        tokio::select! {
            served = serving.as_mut() => {
                if served.is_err_and(|error| is_unread(&error)) {
                    permit.limit_reached(PortLimit::Unread);
                }
                return;
            }
            () = permit.changed() => {}
            () = sleep_until(until) => {}
            () = drained.cancelled(), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Records the phase of the connection after a response: a reader's, which has its own bounds, or one that waits again when
/// the response is written.
fn with_phase(response: Response, permit: Arc<ConnectionPermit>) -> Response {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        permit.set(Phase::Reader);
        return response;
    }
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes() == b"text/event-stream") {
        permit.set(Phase::Reader);
    }
    response.map(|body| Body::new(ResponseBody::new(body, permit)))
}

/// Failures to set a socket option are ignored.
fn set_options(stream: &TcpStream, unread: Duration) {
    // Frames are small and urgent, so Nagle's algorithm is off.
    let _ = stream.set_nodelay(true);
    // The kernel resets a connection whose peer reads nothing, or is gone without a close. No task has to wake up for that,
    // even while nothing is written.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(unread));
    #[cfg(not(target_os = "linux"))]
    let _ = unread;
}

/// Whether a connection ended because its peer read nothing.
fn is_unread(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
}
