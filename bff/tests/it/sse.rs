use std::collections::BTreeMap;
use std::time::Duration;

use carillon_protocol::ServerMessage;
use reqwest::{Client, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::people::{people, token};
use crate::world::{World, entry, in_process};

/// Reads server-sent events, as a browser's EventSource does.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    async fn open(url: &str, last_event_id: Option<&str>) -> Self {
        let request = Client::new().get(url);
        let request =
            if let Some(id) = last_event_id { request.header("Last-Event-ID", id) } else { request };
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        Self { response, text: String::new() }
    }

    /// The fields of the next event; `None` at the end.
    async fn next(&mut self) -> Option<BTreeMap<String, String>> {
        while !self.text.contains("\n\n") {
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let (event, rest) = self.text.split_once("\n\n").unwrap();
        let fields = event
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        self.text = rest.to_owned();
        Some(fields)
    }
}

#[tokio::test]
async fn events_carry_the_same_frames_and_resume_by_last_event_id() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let mut events = Events::open(&bff.http("/sse"), None).await;
    let welcome = events.next().await.unwrap();
    assert_eq!(welcome["event"], "welcome");
    let ServerMessage::Welcome(first) = ServerMessage::parse(&welcome["data"]).unwrap() else {
        panic!("a welcome")
    };
    assert_eq!(first.cursor, welcome["id"]);
    world.push((0..3).map(entry)).await;
    let mut ids = vec![];
    for n in 0..3 {
        let event = events.next().await.unwrap();
        assert!(
            event["event"] == "notification" && event["data"].contains(&format!(r#""id":"{n}""#)),
            "{event:?}"
        );
        ids.push(event["id"].clone());
    }
    drop(events);
    // The header is newer than the URL, which EventSource repeats.
    let mut events = Events::open(&bff.http(&format!("/sse?since={}", ids[0])), Some(&ids[1])).await;
    assert!(events.next().await.unwrap()["data"].contains(r#""resume":"complete""#));
    assert_eq!(events.next().await.unwrap()["id"], ids[2]);
    let mut events = Events::open(&bff.http(&format!("/sse?since={}", ids[0])), None).await;
    events.next().await.unwrap();
    assert_eq!(events.next().await.unwrap()["id"], ids[1]);
}

#[tokio::test]
async fn at_sigterm_a_stream_gets_goodbye_with_retry_and_ends() {
    let world = World::new();
    let mut bff = world.bff("bff-1").await;
    let mut events = Events::open(&bff.http("/sse"), None).await;
    events.next().await.unwrap();
    bff.process.sigterm();
    let goodbye = events.next().await.unwrap();
    assert_eq!(goodbye["event"], "goodbye");
    assert!(goodbye["retry"].parse::<u64>().unwrap() < 1_000 && !goodbye.contains_key("id"), "{goodbye:?}");
    assert_eq!(events.next().await, None);
    assert_eq!(bff.process.wait_exit(crate::world::DEADLINE).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_has_a_heartbeat_every_25_seconds() {
    let mut tcp = TcpStream::connect(in_process().await.2).await.unwrap();
    let start = Instant::now();
    tcp.write_all(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut heard = vec![];
    while String::from_utf8_lossy(&heard).matches("event: heartbeat\nid: ").count() < 2 {
        let more = timeout(Duration::from_secs(30), tcp.read_buf(&mut heard)).await.unwrap();
        assert!(more.unwrap() > 0, "{}", String::from_utf8_lossy(&heard));
    }
    assert_eq!(start.elapsed().as_secs(), 50);
}

#[tokio::test]
async fn an_unreadable_cursor_is_a_gap() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    world.push([entry("a")]).await;
    // EventSource gives up for good after any status but 200, and repeats its cursor with each try.
    let mut events = Events::open(&bff.http("/sse"), Some("nonsense")).await;
    assert!(events.next().await.unwrap()["data"].contains(r#""resume":"gap""#));
    let gap = events.next().await.unwrap();
    assert!(gap["event"] == "gap" && gap["data"].contains(r#""reason":"unreadable""#), "{gap:?}");
    assert!(events.next().await.unwrap()["data"].contains(r#""id":"a""#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_gets_the_state_and_raw_payloads_here_too() {
    let world = World::alone();
    let bff = &people(&world, 1).await[0];
    world.redis.run(&["HSET", "notify:ann:state", "unread", "3"]);
    let mut events = Events::open(&format!("{}?token={}", bff.http("/sse"), token("ann")), None).await;
    assert_eq!(events.next().await.unwrap()["event"], "welcome");
    let state = events.next().await.unwrap();
    assert_eq!((&state["event"][..], state.get("id")), ("state", None));
    assert_eq!(state["data"], r#"{"type":"state","state":{"unread":"3"}}"#);
    world.redis.run(&["PUBLISH", "notify:ann", "two\nlines"]);
    assert_eq!(events.next().await.unwrap()["data"], r#"{"type":"raw","data":"two\nlines"}"#);
}
