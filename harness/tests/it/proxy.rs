use std::time::Duration;

use carillon_harness::{Proxy, RedisServer, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);
/// Long enough for a reply over loopback.
const NOTHING: Duration = Duration::from_millis(100);

struct Client(TcpStream);

impl Client {
    async fn connect(proxy: &Proxy) -> Self {
        let accepted = proxy.accepted();
        let client = Self(TcpStream::connect(proxy.addr()).await.unwrap());
        eventually("the proxy has it", DEADLINE, async || proxy.accepted() > accepted).await;
        client
    }

    async fn send(&mut self, command: &str) {
        self.0.write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
    }

    /// Receives the next line, or "" when the connection has ended.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        while !line.ends_with("\r\n") {
            match timeout(DEADLINE, self.0.read_u8()).await.unwrap() {
                Ok(byte) => line.push(byte.into()),
                Err(_) => return String::new(),
            }
        }
        line.trim_end().to_owned()
    }

    async fn query(&mut self, command: &str) -> String {
        self.send(command).await;
        self.line().await
    }

    async fn is_mute(&mut self) -> bool {
        timeout(NOTHING, self.0.read_u8()).await.is_err()
    }
}

async fn proxied() -> (RedisServer, Proxy) {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr()).await;
    (server, proxy)
}

#[tokio::test]
async fn passes_and_cuts() {
    let (_server, proxy) = proxied().await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.query("PING").await, "+PONG");
    assert_eq!(client.query("INCR n").await, ":1");
    proxy.cut();
    assert_eq!(client.line().await, "", "cut");
    eventually("it is forgotten", DEADLINE, async || proxy.open() == 0).await;
    assert_eq!(Client::connect(&proxy).await.query("INCR n").await, ":2", "new ones pass");
}

#[tokio::test]
async fn a_close_is_passed_on() {
    let (server, proxy) = proxied().await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.query("QUIT").await, "+OK");
    assert_eq!(client.line().await, "");
    drop(client);
    drop(Client::connect(&proxy).await);
    eventually("both ends are closed", DEADLINE, async || proxy.open() == 0).await;
    let mut client = Client::connect(&proxy).await;
    client.query("PING").await;
    server.stop();
    assert_eq!(client.line().await, "", "a dead server is seen");
}

#[tokio::test]
async fn a_black_hole_keeps_sockets_open_and_swallows_all() {
    let (server, proxy) = proxied().await;
    let mut old = Client::connect(&proxy).await;
    assert_eq!(old.query("INCR n").await, ":1");
    proxy.black_hole();
    let mut new = Client::connect(&proxy).await;
    old.send("INCR n").await;
    new.send("INCR n").await;
    eventually("both were swallowed", DEADLINE, async || proxy.lost_bytes() == 16).await;
    assert!(old.is_mute().await && new.is_mute().await);
    server.stop();
    server.start_again();
    assert!(old.is_mute().await, "not even the end of the server is seen");
    proxy.pass();
    assert_eq!((old.line().await, new.line().await), (String::new(), String::new()), "cut afterwards");
    assert_eq!(Client::connect(&proxy).await.query("INCR n").await, ":1");
}

#[tokio::test]
async fn a_forgotten_connection_hangs_while_new_ones_work() {
    let (_server, proxy) = proxied().await;
    let mut old = Client::connect(&proxy).await;
    assert_eq!(old.query("PING").await, "+PONG");
    proxy.black_hole_current();
    assert_eq!(Client::connect(&proxy).await.query("PING").await, "+PONG");
    old.send("PING").await;
    assert!(old.is_mute().await);
}

#[tokio::test]
async fn refuses_new_ones_and_leaves_the_old() {
    let (_server, proxy) = proxied().await;
    let mut old = Client::connect(&proxy).await;
    assert_eq!(old.query("PING").await, "+PONG");
    proxy.refuse();
    let refused = match TcpStream::connect(proxy.addr()).await {
        Ok(mut stream) => timeout(DEADLINE, stream.read_u8()).await.unwrap().is_err(),
        Err(_) => true,
    };
    assert!(refused);
    assert_eq!(old.query("PING").await, "+PONG");
    proxy.pass();
    assert_eq!(Client::connect(&proxy).await.query("PING").await, "+PONG");
    assert_eq!(old.query("PING").await, "+PONG", "it lost nothing");
}

#[tokio::test]
async fn a_command_is_executed_and_its_reply_is_lost() {
    let (server, proxy) = proxied().await;
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.query("INCR n").await, ":1");
    proxy.lose_replies_after(4);
    assert_eq!(client.query("INCR n").await, ":2", "the first four bytes come");
    client.send("INCR n").await;
    eventually("it is done", DEADLINE, async || server.cli(&["GET", "n"]) == "3").await;
    assert!(client.is_mute().await);
    assert_eq!(proxy.lost_bytes(), 4);
    proxy.pass();
    assert_eq!(client.line().await, "");
}

#[tokio::test]
async fn a_target_that_is_down_looks_down() {
    let (server, proxy) = proxied().await;
    server.stop();
    let mut client = Client::connect(&proxy).await;
    assert_eq!(client.line().await, "");
}
