use std::collections::HashSet;
use std::time::Duration;

use carillon_broker::Broker;
use carillon_harness::{Process, RedisServer, eventually};
use carillon_producer::Config;
use carillon_protocol::Audience;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{DEADLINE, claim, claim_all, numbers, producer};

#[tokio::test]
async fn a_count_is_kept_exactly_and_each_push_wakes_the_replicas() {
    let server = RedisServer::start();
    let port = server.port().to_string();
    let mut wakes =
        Process::spawn("/usr/bin/env", &["redis-cli", "-p", &port, "SUBSCRIBE", "Notification-Channel"], &[]);
    wakes.wait_line("subscribe").await;
    let mut producer = producer(&server.url(), &["--interval", "1ms", "--count", "5", "--to", "user:42"]);
    assert_eq!(producer.wait_exit(DEADLINE).await, 0);
    assert_eq!(server.cli(&["LLEN", "Notification-List"]), "5");
    eventually("five wake-ups", DEADLINE, async || {
        wakes.stdout().iter().filter(|line| *line == "message").count() == 5
    })
    .await;

    let notifications = claim_all(&server).await;
    assert_eq!(numbers(&notifications), [1, 2, 3, 4, 5]);
    assert!(notifications.iter().all(|one| one.to == Audience::User("42".into())));
    assert_eq!(notifications.iter().map(|one| one.id.as_str()).collect::<HashSet<_>>().len(), 5);
}

#[tokio::test]
async fn a_signal_ends_it_with_success() {
    let server = RedisServer::shared();
    let mut producer = producer(&server.url(), &["--interval", "1ms"]);
    producer.wait_line("number=3 ").await;
    producer.sigterm();
    assert_eq!(producer.wait_exit(DEADLINE).await, 0);
    let pushed = server.cli(&["LLEN", "Notification-List"]);
    assert!(producer.wait_line("done").await.contains(&format!("pushed={pushed}")));
}

#[tokio::test(start_paused = true)]
async fn the_loop_keeps_its_interval_and_makes_up_nothing_while_redis_is_away() {
    let start = Instant::now();
    let (broker, faults) = Broker::memory(std::sync::Arc::new(move || {
        1_800_000_000_000 + u64::try_from(start.elapsed().as_millis()).unwrap()
    }));
    let stop = CancellationToken::new();
    let config = Config { interval: Duration::from_secs(1), ..Config::default() };
    let script = async {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(claim(&broker).await.len(), 3, "at 0, 1 and 2 seconds");
        faults.go_away();
        tokio::time::sleep(Duration::from_secs(60)).await;
        faults.come_back();
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        let after = claim(&broker).await;
        assert!(numbers(&after).starts_with(&[4]), "{:?}", numbers(&after));
        assert!(after.len() <= 4, "no burst: {:?}", numbers(&after));
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(carillon_producer::run(&broker, &config, &stop), script);
    ended.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_loop_stops_at_once_while_redis_is_away() {
    let (broker, faults) = Broker::memory(std::sync::Arc::new(|| 1_800_000_000_000));
    faults.go_away();
    let stop = CancellationToken::new();
    let script = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        stop.cancel();
        Instant::now()
    };
    let config = Config::default();
    let (ended, stopped) = tokio::join!(carillon_producer::run(&broker, &config, &stop), script);
    ended.unwrap();
    assert!(stopped.elapsed() < Duration::from_millis(10), "on a clock that only sleep moves");
}
