//! The reader against a server of a few lines, which numbers its notifications 1, 2, 3, … and takes `since` for the number
//! after which to continue.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use carillon_harness::{DialOptions, Frame, Reader, ReaderOptions, Refused, Socket};
use carillon_protocol::{CloseCode, Phase};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

struct Server {
    addr: SocketAddr,
    /// The number of the last notification.
    last: watch::Sender<u64>,
    close: watch::Sender<Option<u16>>,
    received: Arc<Mutex<Vec<String>>>,
    _stop: DropGuard,
}

impl Server {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (last, last_seen) = watch::channel(0);
        let (close, close_seen) = watch::channel(None);
        let received = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let (stopped, sink) = (stop.clone(), Arc::clone(&received));
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            loop {
                let (tcp, _) = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap(),
                };
                let serve = serve(name, tcp, last_seen.clone(), close_seen.clone(), Arc::clone(&sink));
                let stopped = stopped.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        () = serve => {}
                    }
                });
            }
        });
        Self { addr, last, close, received, _stop: stop.drop_guard() }
    }

    fn url(&self) -> String {
        format!("ws://{}/ws", self.addr)
    }

    fn push(&self, count: u64) {
        self.last.send_modify(|last| *last += count);
    }
}

#[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
async fn serve(
    name: &str,
    tcp: TcpStream,
    mut last: watch::Receiver<u64>,
    mut close: watch::Receiver<Option<u16>>,
    received: Arc<Mutex<Vec<String>>>,
) {
    let mut since = None;
    let accepted = tokio_tungstenite::accept_hdr_async(tcp, |request: &Request, response: Response| {
        if request.headers().contains_key("x-refuse-me") {
            let mut refusal = ErrorResponse::new(Some("not you".to_owned()));
            *refusal.status_mut() = tokio_tungstenite::tungstenite::http::StatusCode::FORBIDDEN;
            return Err(refusal);
        }
        let query = request.uri().query().unwrap_or_default();
        since = query.strip_prefix("since=").map(|since| since.parse::<u64>().unwrap());
        Ok(response)
    })
    .await;
    let Ok(mut socket) = accepted else { return };
    let mut at = since.unwrap_or(*last.borrow());
    let resume = if since.is_some() { "complete" } else { "none" };
    let welcome = format!(
        r#"{{"type":"welcome","connection":"c","replica":"{name}","user":null,"session":null,"cursor":"{at}","resume":"{resume}","heartbeat_ms":25000}}"#
    );
    let _ = socket.send(Message::text(welcome)).await;
    loop {
        while at < *last.borrow_and_update() {
            at += 1;
            if send(&mut socket, at).await.is_err() {
                return;
            }
        }
        let code = *close.borrow_and_update();
        if let Some(code) = code {
            let frame = CloseFrame { code: WsCloseCode::from(code), reason: "".into() };
            let _ = socket.close(Some(frame)).await;
            return;
        }
        tokio::select! {
            changed = last.changed() => if changed.is_err() { return },
            changed = close.changed() => if changed.is_err() { return },
            message = socket.next() => match message {
                Some(Ok(message)) => received.lock().unwrap().push(message.to_string()),
                _ => return,
            },
        }
    }
}

async fn send(
    socket: &mut WebSocketStream<TcpStream>,
    at: u64,
) -> tokio_tungstenite::tungstenite::Result<()> {
    socket.feed(Message::Ping(Bytes::new())).await?;
    let frame = format!(
        r#"{{"type":"notification","cursor":"{at}","claimed_by":"bff-1","notification":{{"id":"id-{at}","body":"b"}}}}"#
    );
    socket.send(Message::text(frame)).await
}

fn ids(count: u64) -> Vec<String> {
    (1..=count).map(|at| format!("id-{at}")).collect()
}

#[tokio::test]
async fn resumes_after_every_cut_and_misses_nothing() {
    let server = Server::start("bff-1").await;
    let reader = Reader::connect(&server.url()).await;
    for _ in 0..20 {
        server.push(5);
        reader.cut().await;
    }
    reader.wait_for(100).await;
    let record = reader.record();
    assert_eq!(record.ids(), ids(100));
    assert_eq!((record.repeated, record.unreadable.len()), (0, 0));
    assert!(record.welcomes.len() > 1);
    assert_eq!(record.received[99].cursor, "100");
    reader.send("hello").await;
    carillon_harness::eventually("the server receives it", std::time::Duration::from_secs(30), async || {
        server.received.lock().unwrap().iter().any(|text| text == "hello")
    })
    .await;
}

#[tokio::test]
async fn connects_to_the_next_server_after_a_close_and_stops_after_a_final_one() {
    let (one, two) = (Server::start("bff-1").await, Server::start("bff-2").await);
    let options = ReaderOptions::new(&[&one.url(), &two.url()]);
    let reader = Reader::connect_with(options).await;
    assert_eq!(reader.record().live_on(), Some("bff-1"));
    one.close.send_replace(Some(4000));
    reader.until("the other replica", |record| record.live_on() == Some("bff-2")).await;
    assert_eq!(reader.record().closes, [Some(CloseCode::DRAIN)]);
    two.close.send_replace(Some(4501));
    let stopped = Some(Phase::Stopped { code: CloseCode::REFUSED });
    reader.until("the stop", |record| record.phases.last() == stopped.as_ref()).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_gets_frames_later() {
    let server = Server::start("bff-1").await;
    let mut options = ReaderOptions::new(&[&server.url()]);
    options.dial.receive_buffer_bytes = Some(4_096);
    let reader = Reader::connect_with(options).await;
    reader.stop_reading().await;
    server.push(10);
    reader.send("after the push").await;
    assert_eq!(reader.count(), 0);
    reader.read_again().await;
    assert_eq!(reader.wait_for(10).await.len(), 10);
}

#[tokio::test]
async fn a_refusal_is_recorded_and_retried() {
    let server = Server::start("bff-1").await;
    let mut options = ReaderOptions::new(&[&server.url()]);
    options.dial.headers = vec![("x-refuse-me".to_owned(), "yes".to_owned())];
    let reader = Reader::start(options);
    reader.until("three refusals", |record| record.refusals.len() > 2).await;
    assert_eq!(reader.record().refusals[0], Refused::Status(403, "not you".to_owned()));
}

#[tokio::test]
async fn a_plain_socket_sees_every_frame() {
    let server = Server::start("bff-1").await;
    let mut socket = Socket::open(&server.url(), &DialOptions::default()).await.unwrap();
    assert!(socket.text().await.starts_with(r#"{"type":"welcome""#));
    server.push(1);
    assert_eq!(socket.frame().await, Frame::Ping);
    assert!(matches!(socket.frame().await, Frame::Text(_)));
    server.push(1);
    assert!(socket.text().await.contains("id-2"), "the ping is passed over");
    server.close.send_replace(Some(4001));
    assert_eq!(socket.until_closed().await, (Vec::new(), Some(CloseCode::SLOW)));

    let nobody = Socket::open("ws://127.0.0.1:1/ws", &DialOptions::default()).await;
    assert!(matches!(nobody, Err(Refused::Unreachable(_))));
}
