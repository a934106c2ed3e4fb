//! The limits of one client, each at the port.

use std::time::Duration;

use carillon_harness::{DialOptions, Refused, Socket, eventually};
use carillon_protocol::CloseCode;
use carillon_protocol::limits::ENTRY_MAX_BYTES;
use reqwest::{Client, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::people::{PEOPLE, SECRET, signed_in};
use crate::world::{Bff, DEADLINE, World, entry};

/// Lets tests choose the address of their requests.
pub(crate) const PROXIES: [&str; 2] = ["--trusted-proxies", "127.0.0.0/8"];

pub(crate) async fn bff(world: &World, args: &[&str]) -> Bff {
    let bff = Bff::spawn("bff-1", &world.redis.url(), args);
    bff.until_ready().await;
    bff
}

pub(crate) async fn connect(bff: &Bff) -> TcpStream {
    TcpStream::connect(("127.0.0.1", bff.port())).await.unwrap()
}

pub(crate) async fn until_counted(bff: &Bff, limit: &str) {
    let labels = format!(r#"limit="{limit}""#);
    eventually(&format!("{limit} is counted"), DEADLINE, async || {
        bff.metric("carillon_limits_reached_total", &labels).await > 0.5
    })
    .await;
}

/// Reads until the other side closes.
pub(crate) async fn all(stream: &mut TcpStream) -> String {
    let mut heard = vec![];
    // A reset is an end as well.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut heard)).await.expect("an end");
    String::from_utf8_lossy(&heard).into_owned()
}

fn from(address: &str) -> DialOptions {
    let headers = vec![("x-forwarded-for".to_owned(), address.to_owned())];
    DialOptions { headers, ..DialOptions::default() }
}

async fn open(bff: &Bff, address: &str) -> Result<Socket, u16> {
    match Socket::open(&bff.ws(), &from(address)).await {
        Ok(mut socket) => {
            socket.text().await;
            Ok(socket)
        }
        Err(Refused::Status(status, body)) => {
            let problem: carillon_protocol::Problem = serde_json::from_str(&body).unwrap();
            assert_eq!(problem.status, status);
            Err(status)
        }
        Err(refused) => panic!("{refused:?}"),
    }
}

/// Opens a socket once one of those before it is seen to have left.
async fn open_again(bff: &Bff, address: &str) -> Socket {
    let mut socket = None;
    eventually("room", DEADLINE, async || {
        socket = open(bff, address).await.ok();
        socket.is_some()
    })
    .await;
    socket.unwrap()
}

/// The response of `/sse` to a reader without a place: the reason, and the shortest reconnect delay in milliseconds. The
/// status is 200: with any other, a browser's `EventSource` gives up for good.
async fn stream(bff: &Bff, query: &str, address: &str) -> (String, u64) {
    let request = Client::new().get(bff.http(&format!("/sse{query}")));
    let answer = request.header("X-Forwarded-For", address).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let text = answer.text().await.unwrap();
    let lines: Vec<_> = text.lines().collect();
    let retry_ms = lines[0].strip_prefix("retry: ").unwrap().parse().unwrap();
    let error = lines[2].strip_prefix("data: ").unwrap();
    assert_eq!(lines[1], "event: error");
    let error: serde_json::Value = serde_json::from_str(error).unwrap();
    (error["code"].as_str().unwrap().to_owned(), retry_ms)
}

#[tokio::test]
async fn a_full_replica_refuses_until_a_reader_leaves() {
    let world = World::new();
    let bff = bff(&world, &[&PROXIES[..], &["--readers-max", "3"]].concat()).await;
    let mut sockets = vec![];
    for n in 1..=3 {
        sockets.push(open(&bff, &format!("192.0.2.{n}")).await.unwrap());
    }
    assert_eq!(open(&bff, "192.0.2.9").await.err(), Some(503));
    let (code, retry_ms) = stream(&bff, "", "192.0.2.9").await;
    assert!(code == "unavailable" && (1_000..=2_000).contains(&retry_ms), "{code} {retry_ms}");
    until_counted(&bff, "readers").await;
    // The rest of the service is not full.
    assert_eq!(reqwest::get(bff.http("/api/notifications")).await.unwrap().status(), 200);
    sockets.remove(0).cut();
    sockets.push(open_again(&bff, "192.0.2.9").await);
    sockets.remove(0).close().await;
    let _again = open_again(&bff, "192.0.2.9").await;
}

#[tokio::test]
async fn an_address_has_a_limit_of_readers_and_others_are_unaffected() {
    let world = World::new();
    let bff = bff(&world, &[&PROXIES[..], &["--readers-per-address-max", "2"]].concat()).await;
    let (one, _two) = (open(&bff, "192.0.2.1").await.unwrap(), open(&bff, "192.0.2.1").await.unwrap());
    assert_eq!(open(&bff, "192.0.2.1").await.err(), Some(429));
    let (code, retry_ms) = stream(&bff, "", "192.0.2.1").await;
    assert!(code == "rate_limited" && (5_000..=10_000).contains(&retry_ms), "{code} {retry_ms}");
    // The last that is no proxy of ours counts, not what the client says.
    assert_eq!(open(&bff, "198.51.100.1, 192.0.2.1, 127.0.0.9").await.err(), Some(429));
    let _other = open(&bff, "192.0.2.2").await.unwrap();
    until_counted(&bff, "readers_per_address").await;
    one.cut();
    open_again(&bff, "192.0.2.1").await;
    // Programs on this machine are not counted, and no header makes a client one of them.
    let mut here = vec![];
    for _ in 0..4 {
        here.push(Socket::open(&bff.ws(), &DialOptions::default()).await.unwrap());
    }
    let _named = [open(&bff, "127.0.0.1").await.unwrap(), open(&bff, "127.0.0.1").await.unwrap()];
    assert_eq!(open(&bff, "127.0.0.1").await.err(), Some(429));
}

#[tokio::test]
async fn an_ipv6_subscriber_is_one_address() {
    let world = World::new();
    let bff = bff(&world, &[&PROXIES[..], &["--readers-per-address-max", "1"]].concat()).await;
    let _one = open(&bff, "2001:db8:0:1::1").await.unwrap();
    assert_eq!(open(&bff, "2001:db8:0:1:ffff::1").await.err(), Some(429));
    let _other = open(&bff, "2001:db8:0:2::1").await.unwrap();
}

#[tokio::test]
async fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
    let world = World::new();
    let bff = bff(&world, &["--trusted-proxies", "10.0.0.0/8", "--readers-per-address-max", "1"]).await;
    let _reader = open(&bff, "192.0.2.1").await.unwrap();
    // Where a proxy is not known, its clients are counted as one.
    assert_eq!(open(&bff, "192.0.2.2").await.err(), Some(429));
}

#[tokio::test]
async fn a_user_has_a_limit_of_readers_and_others_are_unaffected() {
    let world = World::new();
    let bff = bff(&world, &[&PEOPLE[..], &["--readers-per-user-max", "2"]].concat()).await;
    let url = signed_in(&bff, "ann");
    let open = async |url: &str| Socket::open(url, &DialOptions::default()).await;
    let (one, _two) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    assert!(matches!(open(&url).await, Err(Refused::Status(429, _))));
    let token = url.split_once('?').unwrap().1;
    assert_eq!(stream(&bff, &format!("?{token}"), "192.0.2.1").await.0, "rate_limited");
    until_counted(&bff, "readers_per_user").await;
    let _other = open(&signed_in(&bff, "ben")).await.unwrap();
    one.cut();
    eventually("room", DEADLINE, async || open(&url).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_that_come_and_go_leave_no_trace() {
    const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    const STREAM: &str = "GET /sse HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    let world = World::new();
    let bff = bff(&world, &[&PROXIES[..], &["--readers-per-address-max", "50"]].concat()).await;
    for n in 0..1_000 {
        let mut stream = connect(&bff).await;
        stream.write_all(if n % 3 == 0 { STREAM } else { UPGRADE }.as_bytes()).await.unwrap();
        // Some are gone before the answer is written, and before the upgrade is complete.
        if n % 2 == 0 {
            let mut heard = [0; 64];
            let _ = stream.read(&mut heard).await;
        }
        if n % 5 == 0 {
            stream.set_zero_linger().unwrap();
        }
    }
    let left = async || {
        let joined = bff.metric("carillon_readers_joined_total", "").await;
        joined > 0.5 && (joined - bff.metric("carillon_readers_left_total", "").await).abs() < 0.5
    };
    eventually("all have left", DEADLINE, left).await;
    let mut sockets = vec![];
    for _ in 0..50 {
        sockets.push(open_again(&bff, "192.0.2.1").await);
    }
    assert_eq!(open(&bff, "192.0.2.1").await.err(), Some(429), "no more than there is room for");
}

#[tokio::test]
async fn a_key_has_a_limit_of_publishes() {
    let world = World::new();
    let options = [
        "--api-key",
        "the-first-of-the-keys,the-second-of-the-keys",
        "--publishes-per-key",
        "1",
        "--publish-burst-per-key",
        "3",
    ];
    let bff = bff(&world, &options).await;
    let post = async |key: &str, id: u32| {
        let request = Client::new().post(bff.http("/api/notifications")).bearer_auth(key);
        request.header(header::CONTENT_TYPE, "application/json").body(entry(id)).send().await.unwrap()
    };
    for id in 0..3 {
        assert_eq!(post("the-first-of-the-keys", id).await.status(), StatusCode::ACCEPTED);
    }
    let answer = post("the-first-of-the-keys", 3).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert!(answer.text().await.unwrap().contains("at most 1 a second, 3 in a row"));
    assert_eq!(
        post("the-second-of-the-keys", 4).await.status(),
        StatusCode::ACCEPTED,
        "each key has its own"
    );
    until_counted(&bff, "publishes_per_key").await;
    eventually("it may again", DEADLINE, async || {
        post("the-first-of-the-keys", 5).await.status() == StatusCode::ACCEPTED
    })
    .await;
}

#[tokio::test]
async fn without_keys_an_address_has_a_limit_of_publishes() {
    let world = World::new();
    let options = ["--allow-publish", "--publishes-per-user", "1", "--publish-burst-per-user", "2"];
    let bff = bff(&world, &[&PROXIES[..], &options].concat()).await;
    let post = async |address: &str| {
        let request = Client::new().post(bff.http("/api/notifications")).header("X-Forwarded-For", address);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(r#"{"body":"b"}"#);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!([post("192.0.2.1").await, post("192.0.2.1").await, post("192.0.2.1").await], [202, 202, 429]);
    assert_eq!(post("192.0.2.2").await, 202);
    until_counted(&bff, "publishes_per_user").await;
}

#[tokio::test]
async fn without_keys_bytes_count_too() {
    let world = World::new();
    // One who may publish little may still publish something large, once in a while.
    let options = ["--allow-publish", "--publishes-per-user", "1", "--publish-burst-per-user", "10"];
    let bff = bff(&world, &[&PROXIES[..], &options].concat()).await;
    let post = async |path: &str, body: &str| {
        let request = Client::new().post(bff.http(path)).header("X-Forwarded-For", "192.0.2.1");
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_owned());
        request.send().await.unwrap().status().as_u16()
    };
    let large = format!(r#"{{"body":"b","data":"{}"}}"#, "x".repeat(60_000));
    assert_eq!(post("/api/notifications", &large).await, 202);
    assert_eq!(post("/api/notifications", &large).await, 429);
    assert_eq!(post("/api/users/ann/raw", &large).await, 429);
    eventually("a small one may again, sooner", DEADLINE, async || {
        post("/api/notifications", r#"{"body":"b"}"#).await == 202
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_too_long_closes_with_1009() {
    let world = World::new();
    let bff = bff(&world, &[]).await;
    let mut socket = Socket::open(&bff.ws(), &DialOptions::default()).await.unwrap();
    let fits = format!(r#"{{"type":"unheard of","data":"{}"}}"#, "x".repeat(ENTRY_MAX_BYTES - 100));
    socket.send(&fits).await;
    socket.send(&"x".repeat(ENTRY_MAX_BYTES + 1)).await;
    let (texts, code) = socket.until_closed().await;
    assert_eq!((texts.len(), code), (1, Some(CloseCode::TOO_LARGE)), "a welcome, and the end");
    until_counted(&bff, "message_bytes").await;
    // Of one that is far longer, the rest is not held.
    let mut socket = Socket::open(&bff.ws(), &DialOptions::default()).await.unwrap();
    socket.send(&"x".repeat(5 * ENTRY_MAX_BYTES)).await;
    assert_eq!(socket.until_closed().await.1, Some(CloseCode::TOO_LARGE));
    let counted = async || bff.metric("carillon_limits_reached_total", r#"limit="message_bytes""#).await;
    eventually("it is counted too", DEADLINE, async || counted().await > 1.5).await;
}

#[tokio::test]
async fn a_connection_that_sends_its_request_slowly_is_closed() {
    let world = World::new();
    let bff = bff(&world, &["--request-timeout", "300ms"]).await;
    let (mut mute, mut slow) = (connect(&bff).await, connect(&bff).await);
    slow.write_all(b"GET /sse HTTP/1.1\r\nHost: x\r\nX-").await.unwrap();
    assert_eq!((all(&mut mute).await, all(&mut slow).await), (String::new(), String::new()));
    // One that has asked in time is left alone, also between two requests.
    let mut good = connect(&bff).await;
    for _ in 0..2 {
        good.write_all(b"GET /api/notifications HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut heard = vec![0; 4_096];
        let length = good.read(&mut heard).await.unwrap();
        assert!(heard[..length].starts_with(b"HTTP/1.1 200 OK"));
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    until_counted(&bff, "request_time").await;
}

#[tokio::test]
async fn an_address_has_a_limit_of_pages() {
    let world = World::new();
    let options = ["--pages-per-address", "1", "--page-burst-per-address", "2"];
    let bff = bff(&world, &[&PROXIES[..], &options].concat()).await;
    let get = async |address: &str| {
        let request = Client::new().get(bff.http("/api/notifications")).header("X-Forwarded-For", address);
        request.send().await.unwrap()
    };
    assert_eq!([get("192.0.2.1").await.status(), get("192.0.2.1").await.status()], [200, 200]);
    let answer = get("192.0.2.1").await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    assert_eq!(get("192.0.2.2").await.status(), 200);
    assert_eq!(get("127.0.0.1").await.status(), 200);
    until_counted(&bff, "history_rate").await;
    // Names of proxies alone count as none: they have no privilege.
    assert_eq!(bff.metric("carillon_addresses_unknown_total", "").await, 0.0);
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_refused() {
    let world = World::new();
    let bff = bff(&world, &["--request-timeout", "300ms", "--allow-publish"]).await;
    let mut slow = connect(&bff).await;
    let head = "POST /api/notifications HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let answer = all(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{answer}");
    until_counted(&bff, "request_time").await;
}

#[tokio::test]
async fn the_demo_has_the_same_timeout_of_bodies() {
    let world = World::new();
    let options = ["--request-timeout", "300ms", "--demo-sign-in", "--jwt-secret", SECRET];
    let bff = bff(&world, &options).await;
    let mut slow = connect(&bff).await;
    let head = "POST /api/demo/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let answer = all(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_stream_that_is_never_read_is_cut() {
    let world = World::new();
    let bff = bff(&world, &["--unread-timeout", "1s"]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut mute = socket.connect(([127, 0, 0, 1], bff.port()).into()).await.unwrap();
    mute.write_all(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut good = connect(&bff).await;
    good.write_all(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let joined = async || bff.metric("carillon_readers_joined_total", "sse").await;
    eventually("they joined", DEADLINE, async || joined().await > 1.5).await;
    // More than the kernel holds for it.
    let large = |id: usize| format!(r#"{{"id":"{id}","body":"b","data":"{}"}}"#, "x".repeat(8_000));
    for start in (0..1_000).step_by(50) {
        world.push((start..start + 50).map(large)).await;
    }
    let mut heard = String::new();
    while !heard.contains(r#""id":"999""#) {
        let mut chunk = vec![0; 65_536];
        let length = timeout(DEADLINE, good.read(&mut chunk)).await.unwrap().unwrap();
        assert!(length > 0, "whoever reads is not cut");
        let kept = heard.len().saturating_sub(100);
        heard.drain(..kept);
        heard.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
    until_counted(&bff, "unread").await;
    eventually("it left", DEADLINE, async || bff.metric("carillon_readers_left_total", "sse").await > 0.5)
        .await;
    drop(mute);
}
