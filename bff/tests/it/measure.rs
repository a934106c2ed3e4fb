//! Figures for the documents, by `scripts/measure`. They are printed and never asserted.

use std::time::{Duration, Instant};

use carillon_harness::{DialOptions, Frame, Process, RedisServer, Socket, eventually, free_port};

use crate::world::{DEADLINE, World, entry};

const STARTS: usize = 21;
const READERS: usize = 5_000;
/// Sockets that are opened at the same time.
const AT_ONCE: usize = 50;

#[tokio::test]
#[ignore = "measures: run scripts/measure"]
async fn the_time_until_a_replica_is_ready() {
    let redis = RedisServer::start();
    let mut times = vec![];
    for _ in 0..STARTS {
        let (listen, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let url = redis.url();
        let env =
            [("REDIS_URL", url.as_str()), ("REPLICA", "bff"), ("LISTEN", &listen), ("ADMIN_LISTEN", &admin)];
        let start = Instant::now();
        let _bff = Process::spawn(env!("CARGO_BIN_EXE_bff"), &[], &env);
        let ready = async || {
            reqwest::get(format!("http://{admin}/ready")).await.is_ok_and(|answer| answer.status() == 200)
        };
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "from exec to ready, of {STARTS} starts: min {:.1?}, median {:.1?}, max {:.1?}",
        times[0],
        times[STARTS / 2],
        times[STARTS - 1]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run scripts/measure"]
async fn the_memory_of_an_idle_reader() {
    let world = World::alone();
    let bff = world.bff("bff").await;
    let url = bff.ws();
    let open = async || Socket::open(&url, &DialOptions::default()).await.unwrap();
    // The first readers bring up what all share.
    let _first: Vec<_> = futures_util::future::join_all((0..AT_ONCE).map(|_| open())).await;
    let before = bff.resident_kib();
    let mut sockets = vec![];
    while sockets.len() < READERS {
        sockets.extend(futures_util::future::join_all((0..AT_ONCE).map(|_| open())).await);
    }
    for socket in &mut sockets {
        socket.text().await;
    }
    per_reader("idle", before, bff.resident_kib());
    world.push((0..20).map(entry)).await;
    for socket in &mut sockets {
        for _ in 0..20 {
            assert!(matches!(socket.frame().await, Frame::Text(_)));
        }
    }
    per_reader("after 20 notifications to each", before, bff.resident_kib());
    drop(sockets);
    eventually("all left", DEADLINE, async || bff.metric("carillon_readers_left_total", "").await > 4_999.5)
        .await;
}

fn per_reader(when: &str, before_kib: u64, after_kib: u64) {
    #[allow(clippy::cast_precision_loss, reason = "a few MiB")]
    let each = (after_kib - before_kib) as f64 / READERS as f64;
    println!(
        "resident memory of a /ws reader, {when}: {each:.1} KiB ({READERS} readers, {before_kib} KiB before, {after_kib} KiB after)"
    );
}
