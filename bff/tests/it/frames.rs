//! What a socket sends and accepts, frame by frame.

use carillon_harness::{DialOptions, Frame, Refused, Socket, eventually};
use carillon_protocol::limits::ENTRY_MAX_BYTES;
use carillon_protocol::received;
use carillon_protocol::{CloseCode, Problem, ServerMessage};
use tokio::time::Instant;

use crate::world::{DEADLINE, World, entry, in_process};

async fn open(url: &str) -> Socket {
    let mut socket = Socket::open(url, &DialOptions::default()).await.unwrap();
    assert!(matches!(ServerMessage::parse(&socket.text().await).unwrap(), ServerMessage::Welcome(_)));
    socket
}

#[tokio::test]
async fn a_ping_is_answered_and_unknown_types_are_ignored() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let mut socket = open(&bff.ws()).await;
    socket.send(r#"{"type":"hologram","depth":3}"#).await;
    socket.send(r#"{"type":"ping"}"#).await;
    assert!(matches!(ServerMessage::parse(&socket.text().await).unwrap(), ServerMessage::Heartbeat(_)));
}

#[tokio::test]
async fn an_unreadable_message_gets_an_error_and_a_final_close() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let mut socket = open(&bff.ws()).await;
    socket.send("nonsense").await;
    let (texts, code) = socket.until_closed().await;
    assert_eq!(code, Some(CloseCode::BAD_MESSAGE));
    assert!(
        matches!(ServerMessage::parse(&texts[0]).unwrap(), ServerMessage::Error(received::Refused { code, .. }) if code == "bad_message")
    );

    let mut socket = open(&bff.ws()).await;
    socket.send_binary(b"nonsense").await;
    assert_eq!(socket.until_closed().await.1, Some(CloseCode::BAD_MESSAGE));

    // Too long for a message: only this reader is closed.
    let mut other = open(&bff.ws()).await;
    let mut socket = open(&bff.ws()).await;
    socket.send(&"x".repeat(ENTRY_MAX_BYTES + 1)).await;
    socket.until_closed().await;
    world.push([entry("still here")]).await;
    assert!(other.text().await.contains("still here"));
}

#[tokio::test]
async fn refusals_come_before_the_upgrade_with_a_reason() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let refused =
        Socket::open(&format!("{}?topic=closed", bff.ws()), &DialOptions::default()).await.unwrap_err();
    let Refused::Status(403, body) = refused else { panic!("{refused:?}") };
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert!(problem.detail.contains("PUBLIC_TOPICS"), "{problem:?}");
    assert_eq!(reqwest::get(bff.http("/ws")).await.unwrap().status(), 426);
    assert_eq!(reqwest::get(bff.http("/nowhere")).await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_quiet_reader_gets_heartbeats_and_pings_during_an_outage_of_redis() {
    let world = World::alone();
    let bff = world.bff("bff-1").await;
    let mut socket = open(&bff.ws()).await;
    world.redis.stop();
    bff.until_not_ready().await;
    let mut heard = vec![];
    while heard.len() < 2 {
        heard.push(socket.frame().await);
    }
    assert!(matches!(&heard[0], Frame::Text(text) if text.contains(r#""type":"heartbeat""#)), "{heard:?}");
    assert_eq!(heard[1], Frame::Ping);
}

#[tokio::test]
async fn a_reader_that_sends_nothing_is_closed_as_silent() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let mut socket = open(&bff.ws()).await;
    // It reads nothing, so it answers no ping.
    let code = CloseCode::SILENT.0.to_string();
    eventually("it is closed", DEADLINE * 4, async || {
        bff.metric("carillon_readers_closed_total", &code).await > 0.5
    })
    .await;
    assert_eq!(socket.until_closed().await.1, Some(CloseCode::SILENT));
}

#[tokio::test(start_paused = true)]
async fn every_25_seconds_a_heartbeat_and_a_ping_keep_a_quiet_socket() {
    let mut socket = open(&format!("ws://{}/ws", in_process().await.2)).await;
    let start = Instant::now();
    for beat in 1..=4 {
        let Frame::Text(text) = socket.frame().await else { panic!("a heartbeat") };
        assert!(matches!(ServerMessage::parse(&text).unwrap(), ServerMessage::Heartbeat(_)), "{text}");
        assert_eq!(socket.frame().await, Frame::Ping);
        assert_eq!(start.elapsed().as_secs(), beat * 25);
    }
}
