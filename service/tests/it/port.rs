//! The accept loop: the bounds of connections, and the rate at which a peer has to read.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use carillon_service::{ConnectionOptions, Tasks, Timeouts, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

/// Ends a failed test.
const DEADLINE: Duration = Duration::from_secs(60);
const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// More than a kernel buffers for a peer.
const LARGE_BYTES: usize = 64 * 1024 * 1024;

/// Whether a connection is answered, and not left waiting.
async fn is_answered(stream: &mut TcpStream, request: &str) -> bool {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = [0; 64];
    // Far longer than an answer takes; one that comes later would show below as a connection too many.
    timeout(Duration::from_secs(2), stream.read(&mut bytes)).await.is_ok_and(|length| length.unwrap() > 0)
}

/// A port with few connections, where `/` is answered, `/large` at length, `/slow` never is, and `/ws` is a socket.
async fn port(options: ConnectionOptions) -> (SocketAddr, Tasks) {
    let echo = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| while let Some(Ok(_)) = socket.recv().await {})
    };
    let router = Router::new().route("/", get(async || "here")).route("/ws", get(echo));
    let router = router.route("/large", get(async || vec![b'x'; LARGE_BYTES]));
    let router = router.route("/slow", get(async || std::future::pending::<()>().await));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let tasks = Tasks::default();
    let port =
        serve(listener, router, Timeouts::default(), options, tasks.stop().clone(), TaskTracker::new());
    tasks.spawn("a port", port);
    (addr, tasks)
}

/// Reads until the other side closes.
async fn all(stream: &mut TcpStream) -> String {
    let mut bytes = vec![];
    // A reset is an end as well.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("an end");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn idle_connections_are_closed_for_new_ones() {
    let options = ConnectionOptions { plain_max: 2, ..ConnectionOptions::for_readers(10, |_| {}) };
    let (addr, _tasks) = port(options).await;
    let connect = async || TcpStream::connect(addr).await.unwrap();
    let (mut socket, mut idle) = (connect().await, connect().await);
    assert!(is_answered(&mut socket, UPGRADE).await && is_answered(&mut idle, GET).await);
    let mut busy = connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut third = connect().await;
    assert!(
        is_answered(&mut third, GET).await,
        "the idle connection makes room, and a socket is not counted"
    );
    assert!(!all(&mut idle).await.contains("HTTP/1.1"), "it is closed, and hears no more");
    socket.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
    let mut bytes = vec![];
    while !bytes.ends_with(&[0x8a, 0]) {
        let read = timeout(DEADLINE, socket.read_buf(&mut bytes)).await.expect("a pong").unwrap();
        assert!(read > 0, "the socket is served");
    }
}

#[tokio::test]
async fn a_connection_without_a_place_gets_a_response() {
    let options = ConnectionOptions {
        plain_max: 2,
        plain_per_address_max: 1,
        ..ConnectionOptions::for_readers(0, |_| {})
    };
    let one_each = ConnectionOptions { shared: vec![], ..options.clone() };
    let (addr, _tasks) = port(one_each).await;
    let request = async |path: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        stream
    };
    let mut first = TcpStream::connect(addr).await.unwrap();
    assert!(is_answered(&mut first, GET).await);
    let answer = all(&mut request("/").await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("application/problem+json"), "{answer}");
    assert!(answer.contains("too many connections from this address"), "{answer}");
    assert!(is_answered(&mut first, GET).await, "an accepted connection is served");

    let (addr, _tasks) = port(options).await;
    let request = async |path: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        stream
    };
    let _busy = [request("/slow").await, request("/slow").await];
    let answer = all(&mut request("/").await).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("replica full"), "{answer}");
}

/// Sends requests for `/large`, and reads `bytes`, pauses, and so on, until the end; returns the number of bytes read.
async fn taken(addr: SocketAddr, requests: usize, bytes: usize, pause: Duration) -> usize {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(addr).await.unwrap();
    let get = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n".repeat(requests);
    stream.write_all(get.as_bytes()).await.unwrap();
    let (mut part, mut all) = (vec![0; bytes], 0);
    while all < LARGE_BYTES {
        let mut here = 0;
        while here < bytes && all + here < LARGE_BYTES {
            match timeout(DEADLINE * 60, stream.read(&mut part[here..])).await.expect("more, or the end") {
                Ok(0) | Err(_) => return all + here,
                Ok(length) => here += length,
            }
        }
        all += here;
        tokio::time::sleep(pause).await;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_read_too_slowly_is_cut() {
    let (addr, _tasks) = port(ConnectionOptions::for_readers(10, |_| {})).await;
    let begun = Instant::now();
    // With a second request after the first, the connection is not idle.
    let slow = taken(addr, 2, 256, Duration::from_secs(1)).await;
    assert!(slow < LARGE_BYTES, "it is cut");
    let honest = taken(addr, 1, 8 * 1024 * 1024, Duration::from_secs(40)).await;
    assert!(honest >= LARGE_BYTES && begun.elapsed() > Duration::from_secs(5 * 60), "{honest}");
}
