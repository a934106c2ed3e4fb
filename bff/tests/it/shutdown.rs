use carillon_harness::{DialOptions, Reader, ReaderOptions, Refused, Socket, eventually};
use carillon_protocol::CloseCode;

use crate::world::{Bff, DEADLINE, World, entry};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_sigterm_readers_get_a_goodbye_and_the_process_ends_with_success() {
    let world = World::new();
    let mut bffs = world.bffs(2).await;
    let urls: Vec<_> = bffs.iter().map(Bff::ws).collect();
    let mut readers = vec![];
    for _ in 0..30 {
        readers.push(Reader::connect_with(ReaderOptions::new(&[&urls[0], &urls[1]])).await);
    }
    bffs[0].process.sigterm();
    bffs[0].until_not_ready().await;
    assert!(bffs[0].admin("/ready").await.1.contains("draining"));
    let refused = Socket::open(&urls[0], &DialOptions::default()).await.unwrap_err();
    assert!(matches!(&refused, Refused::Status(503, body) if body.contains("shutting down")), "{refused:?}");
    // A front door that leads readers by its cookie would bring them back here.
    let stream = reqwest::get(bffs[0].http("/sse")).await.unwrap();
    assert_eq!(stream.headers()["set-cookie"], "REALTIMESERVERID=; Max-Age=0; Path=/");
    // What comes while it drains still reaches its readers.
    world.push([entry("while it drains")]).await;
    for reader in &readers {
        reader.until("the other replica", |record| record.live_on() == Some("bff-2")).await;
        reader.wait_for(1).await;
        let record = reader.record();
        assert_eq!((record.goodbyes.len(), &record.closes[..]), (1, &[Some(CloseCode::DRAIN)][..]));
        assert_eq!((record.received.len(), record.repeated), (1, 0));
    }
    assert_eq!(bffs[0].process.wait_exit(DEADLINE).await, 0);
    world.push([entry("after")]).await;
    assert!(readers[0].wait_for(2).await[1].claimed_by == "bff-2");
}

#[tokio::test]
async fn a_replica_that_stops_claims_no_more() {
    let world = World::new();
    let mut bff = world.bff("bff-1").await;
    let _reader = Reader::connect(&bff.ws()).await;
    bff.process.sigterm();
    bff.until_not_ready().await;
    bff.process.wait_line("stopping").await;
    world.push([entry("left behind")]).await;
    assert_eq!(bff.process.wait_exit(DEADLINE).await, 0);
    assert_eq!(world.broker.waiting().await.unwrap(), 1);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let world = World::new();
    let mut bff = world.bff("bff-1").await;
    let _readers = [Reader::connect(&bff.ws()).await, Reader::connect(&bff.ws()).await];
    bff.process.sigterm();
    bff.process.wait_line("stopping").await;
    bff.process.sigterm();
    assert_eq!(bff.process.wait_exit(DEADLINE).await, 143);
}

#[tokio::test]
async fn faults_at_the_start_are_one_readable_line() {
    let world = World::new();
    let running = world.bff("bff-1").await;
    let taken = format!("127.0.0.1:{}", running.port());
    for (args, words) in [
        (vec!["--listen", &taken], "the port is taken"),
        (vec!["--redis-url", "http://x"], "no usable Redis URL"),
        (vec!["--static-dir", "/nowhere"], "no viewer in /nowhere"),
    ] {
        let mut bff = Bff::spawn("bff-2", &world.redis.url(), &args);
        assert_eq!(bff.process.wait_exit(DEADLINE).await, 1, "{args:?}");
        let stderr = bff.process.stderr();
        let faults: Vec<_> = stderr.iter().filter(|line| line.starts_with("bff: ")).collect();
        assert!(faults.len() == 1 && faults[0].contains(words), "{args:?}: {stderr:?}");
    }
    let mut bff = Bff::spawn("two words", &world.redis.url(), &[]);
    assert_ne!(bff.process.wait_exit(DEADLINE).await, 0);
}

#[tokio::test]
async fn the_health_check_follows_readiness() {
    let world = World::alone();
    let bff = world.bff("bff-1").await;
    let check = async || {
        let env = [("ADMIN_LISTEN", bff.admin_addr())];
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        carillon_harness::Process::spawn(env!("CARGO_BIN_EXE_bff"), &["check"], &env)
            .wait_exit(DEADLINE)
            .await
    };
    assert_eq!(check().await, 0);
    world.redis.stop();
    eventually("it fails", DEADLINE, async || check().await == 1).await;
}
