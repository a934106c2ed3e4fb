//! The port: its places for connections, its bounds of memory, and its refusals.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use carillon_bff::{Patience, PlaceOptions, serve};
use carillon_protocol::Problem;
use carillon_service::Tasks;
use reqwest::{Client, RequestBuilder, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::limits::{PROXIES, all, bff, connect, until_counted};
use crate::people::KEY;
use crate::world::{DEADLINE, World};

/// Whether a connection is answered, and not left waiting.
async fn is_answered(stream: &mut TcpStream, request: &str) -> bool {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut heard = [0; 64];
    // Far longer than an answer takes; one that comes later would show below as a connection too many.
    timeout(Duration::from_secs(2), stream.read(&mut heard)).await.is_ok_and(|length| length.unwrap() > 0)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// More than a kernel buffers for a peer.
const LARGE_BYTES: usize = 64 * 1024 * 1024;

/// A port with few places, where `/` is answered, `/large` at length, `/slow` never is, and `/ws` is a socket.
async fn port(options: PlaceOptions) -> (SocketAddr, Tasks) {
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
        serve(listener, router, Patience::default(), options, tasks.stop().clone(), TaskTracker::new());
    tasks.spawn("a port", port);
    (addr, tasks)
}

#[tokio::test]
async fn idle_connections_are_closed_for_new_ones() {
    let options = PlaceOptions { plain_max: 2, ..PlaceOptions::for_readers(10) };
    let (addr, _tasks) = port(options).await;
    let connect = async || TcpStream::connect(addr).await.unwrap();
    let (mut socket, mut idle) = (connect().await, connect().await);
    assert!(is_answered(&mut socket, UPGRADE).await && is_answered(&mut idle, GET).await);
    let mut busy = connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut third = connect().await;
    assert!(is_answered(&mut third, GET).await, "the one that is idle makes room, a socket needs none");
    assert!(!all(&mut idle).await.contains("HTTP/1.1"), "it is closed, and hears no more");
    socket.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
    let mut heard = vec![];
    while !heard.ends_with(&[0x8a, 0]) {
        let read = timeout(DEADLINE, socket.read_buf(&mut heard)).await.expect("a pong").unwrap();
        assert!(read > 0, "the socket is served");
    }
}

#[tokio::test]
async fn a_connection_without_a_place_gets_a_response() {
    let options = PlaceOptions { plain_max: 2, plain_per_address_max: 1, ..PlaceOptions::for_readers(0) };
    let one_each = PlaceOptions { shared: vec![], ..options.clone() };
    let (addr, _tasks) = port(one_each).await;
    let ask = async |path: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        stream
    };
    let mut first = TcpStream::connect(addr).await.unwrap();
    assert!(is_answered(&mut first, GET).await);
    let answer = all(&mut ask("/").await).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("application/problem+json"), "{answer}");
    assert!(answer.contains("too many connections from this address"), "{answer}");
    assert!(is_answered(&mut first, GET).await, "who is in is served");

    let (addr, _tasks) = port(options).await;
    let ask = async |path: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        stream
    };
    let _busy = [ask("/slow").await, ask("/slow").await];
    let answer = all(&mut ask("/").await).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("replica full"), "{answer}");
}

#[tokio::test]
async fn a_head_has_a_bound_and_a_time() {
    let world = World::new();
    let bff = bff(&world, &["--request-timeout", "2s"]).await;
    let mut long = connect(&bff).await;
    let get = "GET /api/notifications HTTP/1.1\r\nHost: x\r\n";
    long.write_all(format!("{get}X: {}\r\n", "x".repeat(40 * 1024)).as_bytes()).await.unwrap();
    let answer = all(&mut long).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // A second head is waited for no longer than a first one, however slowly it goes on.
    let mut slow = connect(&bff).await;
    assert!(is_answered(&mut slow, &format!("{get}\r\n")).await);
    slow.write_all(get.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let mut heard = [0; 65_536];
    while timeout(Duration::from_millis(100), slow.read(&mut heard)).await.is_err_and(|_| true) {
        assert!(begun.elapsed() < DEADLINE);
        if slow.write_all(b"X: x\r\n").await.is_err() {
            break;
        }
    }
    until_counted(&bff, "request_time").await;
}

#[tokio::test]
async fn empty_fragments_are_counted() {
    let world = World::new();
    let bff = bff(&world, &[]).await;
    let mut socket = connect(&bff).await;
    assert!(is_answered(&mut socket, UPGRADE).await);
    // A text that begins, and goes on for ever.
    let mut frames = vec![0x01, 0x80, 0, 0, 0, 0];
    frames.extend([0x00, 0x80, 0, 0, 0, 0].repeat(200));
    socket.write_all(&frames).await.unwrap();
    let mut heard = vec![];
    let _ = timeout(DEADLINE, socket.read_to_end(&mut heard)).await.expect("an end");
    let words = String::from_utf8_lossy(&heard);
    assert!(words.contains("too many fragments"), "{words}");
    until_counted(&bff, "messages").await;
}

#[tokio::test]
async fn unfinished_messages_have_a_bound() {
    let world = World::new();
    let bff = bff(&world, &PROXIES).await;
    let upgrade = UPGRADE.replace("Host: x", "Host: x\r\nX-Forwarded-For: 192.0.2.1");
    let mut sockets = vec![];
    // An eighth of 16 MiB is for one address: 33 times 64,000 bytes are more.
    for _ in 0..33 {
        let mut socket = connect(&bff).await;
        assert!(is_answered(&mut socket, &upgrade).await);
        socket.write_all(&[0x01, 0xfe, 0xfa, 0x00, 0, 0, 0, 0, b'x']).await.unwrap();
        sockets.push(socket);
    }
    until_counted(&bff, "unfinished_bytes").await;
    let mut other = connect(&bff).await;
    assert!(is_answered(&mut other, &upgrade.replace("192.0.2.1", "192.0.2.2")).await);
    other.write_all(&[0x01, 0xfe, 0xfa, 0x00, 0, 0, 0, 0, b'x']).await.unwrap();
    drop(sockets);
    let closed = async || bff.metric("carillon_readers_closed_total", r#"code="1013""#).await;
    assert!(closed().await > 0.5 && closed().await < 1.5);
}

#[tokio::test]
async fn a_request_without_valid_credentials_is_refused_before_its_body() {
    let world = World::new();
    let bff = bff(&world, &["--api-key", "a key of sixteen"]).await;
    let json = "Content-Type: application/json\r\nContent-Length: 50000";
    for (path, headers) in [
        ("/api/notifications", format!("webhook-id: x\r\n{json}")),
        ("/twirp/notify.NotifyService/Publish", json.to_owned()),
        ("/twirp/notify.NotifyService/State", json.to_owned()),
        ("/api/users/ann/raw", json.to_owned()),
    ] {
        let mut stream = connect(&bff).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut heard = [0; 1_024];
        let length = timeout(DEADLINE, stream.read(&mut heard)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&heard[..length]);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem_and_no_response_is_cached() {
    let world = World::new();
    let bff = bff(&world, &["--api-key", KEY]).await;
    let http = Client::new();
    let ask = |method: &str, path: &str| http.request(method.parse().unwrap(), bff.http(path));
    let json = |request: RequestBuilder| request.header(header::CONTENT_TYPE, "application/json");
    let key = |request: RequestBuilder| request.bearer_auth(KEY);
    let long = "x".repeat(70_000);
    for (request, status) in [
        (ask("GET", "/api/nowhere"), 404),
        (ask("GET", "/api"), 404),
        (ask("GET", "/nowhere"), 404),
        (ask("DELETE", "/api/notifications"), 405),
        (ask("POST", "/ws"), 405),
        (ask("GET", "/ws"), 426),
        (ask("GET", "/api/notifications?limit=x"), 400),
        (ask("GET", "/api/users/%ff/state"), 400),
        (ask("GET", "/api/jobs/nobody"), 401),
        (json(ask("POST", "/api/notifications")), 401),
        (key(ask("POST", "/api/notifications")), 415),
        (key(json(ask("POST", "/api/notifications"))).body("{"), 400),
        (key(json(ask("POST", "/api/notifications"))).body(long.clone()), 413),
        (key(ask("POST", "/api/users/ann/raw")).body(long), 413),
        (key(json(ask("PUT", "/api/users/ann/state"))).body("[]"), 400),
    ] {
        let request = request.build().unwrap();
        let what = format!("{} {}", request.method(), request.url());
        let answer = http.execute(request).await.unwrap();
        assert_eq!(answer.status(), status, "{what}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json", "{what}");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store", "{what}");
        assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{what}");
        assert_eq!(answer.headers().contains_key(header::ALLOW), status == 405, "{what}");
        let problem: Problem = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(problem.status, status, "{what}");
    }
    let good = ask("GET", "/api/notifications").send().await.unwrap();
    assert_eq!(
        (good.status().as_u16(), &good.headers()[header::CACHE_CONTROL]),
        (200, &"no-store".parse().unwrap())
    );
    assert_eq!(good.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_before_the_body_arrives_whatever_the_body_s_length() {
    let world = World::new();
    let bff = bff(&world, &["--api-key", KEY]).await;
    let half = vec![b'x'; 400_000];
    let authorization = format!("Authorization: Bearer {KEY}\r\n");
    for (key, status) in [("", "401"), (authorization.as_str(), "413")] {
        let mut stream = connect(&bff).await;
        let head =
            format!("POST /api/users/ann/raw HTTP/1.1\r\nHost: x\r\n{key}Content-Length: 800000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&half).await.unwrap();
        // The answer is there, and the connection takes what is still sent.
        let mut answer = [0; 1_024];
        let length = timeout(DEADLINE, stream.read(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        stream.write_all(&half).await.unwrap();
        // And then the next request, since all of this one came.
        assert!(is_answered(&mut stream, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").await);
    }
}

/// Sends these requests for `/large`, and takes so many bytes, pauses, and so on, until the end; so many came.
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
    let (addr, _tasks) = port(PlaceOptions::for_readers(10)).await;
    let begun = Instant::now();
    // With a second request behind the first, the connection is not one that has nothing to do.
    let slow = taken(addr, 2, 256, Duration::from_secs(1)).await;
    assert!(slow < LARGE_BYTES, "it is cut");
    let honest = taken(addr, 1, 8 * 1024 * 1024, Duration::from_secs(40)).await;
    assert!(honest >= LARGE_BYTES && begun.elapsed() > Duration::from_secs(5 * 60), "{honest}");
}
