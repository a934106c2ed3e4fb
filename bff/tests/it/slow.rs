use std::time::Duration;

use carillon_harness::{DialOptions, Reader, ReaderOptions, eventually};
use carillon_protocol::CloseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::limits::until_counted;
use crate::world::{DEADLINE, World};

/// A receive buffer that is full soon.
fn narrow(url: &str) -> ReaderOptions {
    let dial = DialOptions { receive_buffer_bytes: Some(4_096), ..DialOptions::default() };
    ReaderOptions { dial, ..ReaderOptions::new(&[url]) }
}

fn large(id: usize) -> String {
    format!(r#"{{"id":"{id}","body":"b","data":"{}"}}"#, "x".repeat(8_000))
}

fn expected(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_reading_costs_little_memory_and_catches_up() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let quick = Reader::connect(&bff.ws()).await;
    let mut slow = vec![];
    for _ in 0..20 {
        let reader = Reader::connect_with(narrow(&bff.ws())).await;
        reader.stop_reading().await;
        slow.push(reader);
    }
    let before = bff.resident_kib();
    // 48 MB for each of twenty readers: a queue a reader would hold a gigabyte.
    let count = 6_000;
    for start in (0..count).step_by(50) {
        world.push((start..start + 50).map(large)).await;
    }
    assert_eq!(quick.wait_for(count).await.len(), count, "nobody else notices");
    let grown = bff.resident_kib().saturating_sub(before);
    assert!(grown < 100 * 1_024, "{grown} KiB more");
    for reader in &slow {
        reader.read_again().await;
    }
    for reader in &slow {
        let ids: Vec<_> = reader.wait_for(count).await.into_iter().map(|one| one.id).collect();
        assert_eq!(ids, expected(count));
        assert_eq!(reader.record().repeated, 0);
    }
    assert!(bff.metric("carillon_history_reads_total", "").await > 0.5, "they were behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_for_long_is_closed_as_slow_and_resumes() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let slow = Reader::connect_with(narrow(&bff.ws())).await;
    slow.stop_reading().await;
    let count = 2_000;
    for start in (0..count).step_by(50) {
        world.push((start..start + 50).map(large)).await;
    }
    let code = CloseCode::SLOW.0.to_string();
    eventually("it is closed as slow", DEADLINE * 2, async || {
        bff.metric("carillon_readers_closed_total", &code).await > 0.5
    })
    .await;
    slow.read_again().await;
    let ids: Vec<_> = slow.wait_for(count).await.into_iter().map(|one| one.id).collect();
    assert_eq!(ids, expected(count));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_read_byte_by_byte_is_cut_as_slow() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let since = world.broker.tail().await.unwrap();
    let count = 2_000;
    for start in (0..count).step_by(50) {
        world.push((start..start + 50).map(large)).await;
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut slow = socket.connect(bff.listen()).await.unwrap();
    let get = format!("GET /sse?since={since} HTTP/1.1\r\nHost: x\r\n\r\n");
    slow.write_all(get.as_bytes()).await.unwrap();
    // The kernel sees progress, so it does not cut the connection.
    let taking = async {
        let mut byte = [0];
        while slow.read(&mut byte).await.is_ok_and(|length| length > 0) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        _ = timeout(DEADLINE * 10, taking) => {}
        () = until_counted(&bff, "slow") => {}
    }
    let left = async || bff.metric("carillon_readers_left_total", "sse").await > 0.5;
    eventually("it left, and holds nothing", DEADLINE, left).await;
}
