//! What `frontend/Caddyfile` promises, on a real Caddy in front of a stub of a replica.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use carillon_harness::{Caddy, Dns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// In front of the value of the cookie that holds a browser to its replica.
const COOKIE: &str = "REALTIMESERVERID=";
/// An answer without headers of its own.
const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
/// An answer with headers of its own, which expires the cookie as a draining replica does.
const OUTSPOKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\ncache-control: private\r\n\
    x-content-type-options: nosniff\r\nset-cookie: REALTIMESERVERID=; Path=/; Max-Age=0\r\n\r\n{}";

/// The front door before one replica, and a folder with a page.
struct Door {
    caddy: Caddy,
    replica: SocketAddr,
    requests: tokio::sync::mpsc::Receiver<String>,
    _dns: Dns,
    _viewer: tempfile::TempDir,
}

impl Door {
    async fn before(answer: &'static str, env: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let replica = listener.local_addr().unwrap();
        let (sender, requests) = tokio::sync::mpsc::channel(16);
        TaskTracker::new().spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 8192];
                let length = stream.read(&mut request).await.unwrap_or_default();
                let _ = sender.try_send(String::from_utf8_lossy(&request[..length]).to_lowercase());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let dns = Dns::start(&[Ipv4Addr::LOCALHOST]).await;
        let viewer = tempfile::tempdir().unwrap();
        std::fs::write(viewer.path().join("index.html"), "a page").unwrap();
        let (port, resolver) = (replica.port().to_string(), dns.addr().to_string());
        let folder = viewer.path().to_string_lossy().into_owned();
        let own = [("BFF_PORT", &*port), ("DNS_RESOLVER", &*resolver), ("VIEWER_DIR", &*folder)];
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../frontend/Caddyfile");
        let caddy = Caddy::start(&file, &[&own, env].concat()).await;
        Self { caddy, replica, requests, _dns: dns, _viewer: viewer }
    }

    /// The head of an answer, in small letters.
    async fn get(&self, path: &str, headers: &str) -> Vec<String> {
        let host = self.caddy.url().replace("http://", "");
        let mut stream = TcpStream::connect(host.as_str()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        head.split("\r\n").skip(1).map(str::to_owned).collect()
    }

    async fn header(&self, path: &str, headers: &str, name: &str) -> Vec<String> {
        let all = self.get(path, headers).await;
        let named = all.iter().filter_map(|line| line.split_once(": "));
        named.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_hides_the_address_of_a_replica_and_is_hidden_from_scripts() {
    let mut values = vec![];
    for env in [&[][..], &[("COOKIE_SECRET", "one")], &[("COOKIE_SECRET", "two")]] {
        let door = Door::before(PLAIN, env).await;
        let cookies = door.header("/api/notifications", "", "set-cookie").await;
        let [cookie] = &cookies[..] else { panic!("{cookies:?}") };
        let (value, attributes) = cookie.strip_prefix(COOKIE).unwrap().split_once(';').unwrap();
        assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax");
        let secret = env.first().map_or("", |(_, secret)| secret);
        values.push((value.to_owned(), hash(secret, door.replica)));
        let secure = door.header("/api/notifications", "x-forwarded-proto: https\r\n", "set-cookie").await;
        assert_eq!(secure, [format!("{cookie}; Secure")]);
    }
    // Without the key the address of a replica is found by trying addresses.
    assert!(values.iter().all(|(value, computed)| value == computed), "{values:?}");
}

/// Caddy's cookie for a replica.
fn hash(secret: &str, replica: SocketAddr) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = ring::hmac::sign(&key, replica.to_string().as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_neither_stored_nor_sniffed_and_headers_of_a_replica_stay() {
    let door = Door::before(PLAIN, &[]).await;
    assert_eq!(door.header("/api/users/ann/state?token=x", "", "cache-control").await, ["no-store"]);
    assert_eq!(door.header("/api/notifications", "", "x-content-type-options").await, ["nosniff"]);
    assert_eq!(door.header("/docs", "", "cache-control").await, [""; 0]);
    let door = Door::before(OUTSPOKEN, &[]).await;
    assert_eq!(door.header("/api/notifications", "", "cache-control").await, ["private"]);
    assert_eq!(door.header("/api/notifications", "", "x-content-type-options").await, ["nosniff"]);
    let cookies = door.header("/api/notifications", "", "set-cookie").await;
    assert!(cookies.contains(&format!("{COOKIE}; Path=/; Max-Age=0")), "{cookies:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_connects_to_its_own_host_only_and_hsts_is_sent_over_https_only() {
    let door = Door::before(PLAIN, &[]).await;
    let policies = door.header("/", "", "content-security-policy").await;
    let words: Vec<_> = policies[0].split("; ").collect();
    for wanted in ["default-src 'self'", "connect-src 'self'", "object-src 'none'", "base-uri 'none'"] {
        assert!(words.contains(&wanted), "{wanted}: {words:?}");
    }
    for path in ["/", "/api/notifications"] {
        assert_eq!(door.header(path, "", "strict-transport-security").await, [""; 0], "{path}");
        let secure = door.header(path, "x-forwarded-proto: https\r\n", "strict-transport-security").await;
        assert_eq!(secure, ["max-age=31536000"], "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_named_proxy_may_forward_an_address() {
    let forwarded = "x-forwarded-for: 203.0.113.9\r\n";
    let mut door = Door::before(PLAIN, &[]).await;
    door.get("/api/notifications", forwarded).await;
    let request = door.requests.recv().await.unwrap();
    assert!(request.contains("x-forwarded-for: 127.0.0.1\r\n"), "{request}");
    let mut door = Door::before(PLAIN, &[("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    door.get("/api/notifications", forwarded).await;
    let request = door.requests.recv().await.unwrap();
    assert!(request.contains("x-forwarded-for: 203.0.113.9, 127.0.0.1\r\n"), "{request}");
}
