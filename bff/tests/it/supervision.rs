//! The reader of the log may be gone, stuck or full: the replica continues, and can be ended.

use std::fs::OpenOptions;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::process::Stdio;

use carillon_harness::{DialOptions, Reader, Socket, eventually};

use crate::people::{PEOPLE, signed_in, token};
use crate::world::{Bff, DEADLINE, World, entry};

/// An unreadable entry is a line at WARN. So many are more than a pipe holds, and more than may wait.
const UNREADABLE: usize = 3_000;

async fn goes_on_and_ends(stderr: impl Into<Stdio>) {
    let world = World::new();
    let mut bff = Bff::spawn_with_stderr("bff-1", &world.redis.url(), stderr);
    bff.until_ready().await;
    let reader = Reader::connect(&bff.ws()).await;
    for chunk in 0..UNREADABLE / 100 {
        world.push((0..100).map(|_| "{".to_owned()).chain([entry(chunk)])).await;
        reader.wait_for(chunk + 1).await;
    }
    assert!(bff.metric("carillon_entries_refused_total", "").await > 2_999.5);
    let dropped = async || bff.metric("carillon_log_lines_dropped_total", "").await > 0.5;
    eventually("lines that were dropped", DEADLINE, dropped).await;
    assert_eq!(bff.admin("/ready").await.0, 200);
    bff.process.sigterm();
    assert_eq!(bff.process.wait_exit(DEADLINE).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_closed_log_continues() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    goes_on_and_ends(writer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_full_log_continues() {
    goes_on_and_ends(OpenOptions::new().write(true).open("/dev/full").unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_blocked_log_continues() {
    let (_stuck, writer) = full_pipe();
    goes_on_and_ends(writer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_the_start_ends_the_process_even_if_stderr_is_blocked() {
    let world = World::new();
    let running = world.bff("bff-1").await;
    let (_stuck, writer) = full_pipe();
    let listen = format!("127.0.0.1:{}", running.port()).parse().unwrap();
    let mut bff = Bff::spawn_at_with_stderr("bff-2", listen, &world.redis.url(), writer);
    assert_eq!(bff.process.wait_exit(DEADLINE).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_level_shows_a_secret() {
    let world = World::new();
    let bff =
        Bff::spawn_with_env("bff-1", &world.redis.url(), &PEOPLE, &[("LOG", "trace,tungstenite=trace")]);
    bff.until_ready().await;
    let (ann, ben) = (token("ann"), token("ben"));
    let mut socket = Socket::open(&signed_in(&bff, "cem"), &DialOptions::default()).await.unwrap();
    socket.text().await;
    socket.send(&format!(r#"{{"type":"token","token":"{ann}"}}"#)).await;
    let headers = vec![("sec-websocket-protocol".to_owned(), "carillon".to_owned())];
    let dial = DialOptions { headers, ..DialOptions::default() };
    let mut socket = Socket::open(&bff.ws(), &dial).await.unwrap();
    socket.send(&format!(r#"{{"type":"hello","token":"{ben}"}}"#)).await;
    socket.text().await;
    let url = bff.http(&format!("/api/notifications?token={ann}"));
    assert_eq!(reqwest::get(url).await.unwrap().status(), 200);
    world.push([entry("the last")]).await;
    while !socket.text().await.contains("the last") {}
    let lines = bff.process.stderr();
    assert!(lines.iter().any(|line| line.contains("TRACE") || line.contains("DEBUG")), "{lines:?}");
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for secret in [signature(&ann), signature(&ben)] {
        assert!(lines.iter().all(|line| !line.contains(&secret)), "{lines:#?}");
    }
}

/// A pipe that a thread keeps full until its reader is dropped.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    std::thread::spawn(move || while filler.write_all(&[b'x'; 4_096]).is_ok() {});
    (reader, writer)
}
