//! The port of readers: its bounds of memory, and its refusals.

use std::time::Duration;

use carillon_protocol::Problem;
use reqwest::{Client, RequestBuilder, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

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

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

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
