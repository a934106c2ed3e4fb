//! What only a real Redis server can show.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use carillon_broker::limits::IDS_MAX;
use carillon_broker::{Broker, BrokerError, BrokerEvent, FanOut, Names, Subscriptions};
use carillon_harness::{Process, Proxy, RedisServer, eventually};
use carillon_protocol::{Audience, Cursor, GapReason, Position};
use futures_util::future::poll_immediate;
use tokio::time::timeout;

use crate::bench::{DEADLINE, text};

async fn everyone(broker: &Broker, since: &Cursor) -> Vec<String> {
    let page = broker.history(&[Audience::Everyone], since, 100).await.unwrap();
    page.entries.iter().map(|recalled| text(&recalled.stored.raw)).collect()
}

#[tokio::test]
async fn the_names_are_the_contract_and_what_is_kept_expires() {
    let server = RedisServer::start();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    // Any program may push: no id, no JSON, and the wake-up carries nothing.
    server.run(&["LPUSH", "Notification-List", "hello", r#"{"id":"a","body":"b","to":{"user":"42"}}"#, "{"]);
    server.run(&["PUBLISH", "Notification-Channel", "x"]);
    broker.claim("bff", FanOut::All).await.unwrap();
    let keys = server.cli(&["KEYS", "*"]);
    let keys: BTreeSet<_> = keys.lines().collect();
    let expected = ["dead", "history:everyone", "history:user:42", "ids:a", "sequence"]
        .map(|name| format!("{{Notification-List}}:{name}"));
    assert_eq!(keys, expected.iter().map(String::as_str).collect());
    let age_ms = |key: &str| server.cli(&["PTTL", key]).parse::<u64>().unwrap();
    let hour = 60 * 60 * 1_000;
    assert!((23 * hour..=24 * hour).contains(&age_ms("{Notification-List}:history:everyone")));
    assert!((6 * 24 * hour..=7 * 24 * hour).contains(&age_ms("{Notification-List}:history:user:42")));
    assert!(age_ms("{Notification-List}:ids:a") <= hour);
    let slots: BTreeSet<_> =
        keys.iter().copied().chain(["Notification-List"]).map(|key| server_slot(&server, key)).collect();
    assert_eq!(slots.len(), 1, "one slot on Redis Cluster");
}

/// The cluster slot of a key, by Redis' own arithmetic. `CLUSTER KEYSLOT` needs a node in cluster mode.
fn server_slot(server: &RedisServer, key: &str) -> u16 {
    assert!(!server.cli(&["PING"]).is_empty());
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or(key, |(tag, _)| tag);
    let mut crc = 0_u16;
    for byte in tag.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % 16_384
}

#[tokio::test]
async fn ids_are_dropped_through_one_turn_of_the_sets_and_forgotten_after_two() {
    let server = RedisServer::shared();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let push = async || {
        broker.push(&[br#"{"id":"a","body":"b"}"#.to_vec()]).await.unwrap();
        broker.claim("bff", FanOut::All).await.unwrap().repeated
    };
    let turn = || server.run(&["HSET", "{Notification-List}:sequence", "ids_since", "1"]);
    assert_eq!(push().await, 0);
    assert_eq!(push().await, 1);
    turn();
    assert_eq!(push().await, 1, "from the older set");
    turn();
    turn();
    broker.claim("bff", FanOut::All).await.unwrap();
    assert_eq!(push().await, 0, "both sets are new by now");
}

#[tokio::test]
async fn at_their_ceiling_the_sets_of_ids_take_turns_early() {
    let server = RedisServer::shared();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    broker.claim("bff", FanOut::All).await.unwrap();
    let fill = "for n = 1, tonumber(ARGV[1]) do redis.call('SADD', KEYS[1], n) end";
    let count = (IDS_MAX / 2).to_string();
    server.run(&["EVAL", fill, "1", "{Notification-List}:ids:a", &count]);
    broker.push(&[br#"{"id":"a","body":"b"}"#.to_vec()]).await.unwrap();
    broker.claim("bff", FanOut::All).await.unwrap();
    assert_eq!(server.cli(&["SCARD", "{Notification-List}:ids:b"]), "1");
}

#[tokio::test]
async fn a_server_without_a_replication_id_or_the_right_to_read_it_has_one_epoch() {
    let server = RedisServer::start();
    server.run(&["ACL", "SETUSER", "less", "reset", "on", ">secret", "~*", "&*", "+@all", "-info"]);
    let broker =
        Broker::redis(&format!("redis://less:secret@127.0.0.1:{}", server.port()), Names::default()).unwrap();
    let before = broker.tail().await.unwrap();
    broker.push(&[b"a".to_vec()]).await.unwrap();
    assert_eq!(broker.claim("bff", FanOut::All).await.unwrap().epoch, before.epoch);
}

#[tokio::test]
async fn a_server_that_restarts_without_its_data_begins_a_new_epoch() {
    let server = RedisServer::start();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    broker.push(&[b"before".to_vec()]).await.unwrap();
    broker.claim("bff", FanOut::All).await.unwrap();
    let before = broker.tail().await.unwrap();
    server.start_again_empty();
    eventually("Redis", DEADLINE, async || broker.push(&[b"after".to_vec()]).await.is_ok()).await;
    broker.claim("bff", FanOut::All).await.unwrap();
    let page = broker.history(&[Audience::Everyone], &before, 10).await.unwrap();
    assert_eq!(crate::bench::gaps(&page), [(GapReason::Epoch, None)]);
    assert_eq!(everyone(&broker, &before).await, ["after"]);
}

#[tokio::test]
async fn a_promoted_replica_is_a_new_epoch_and_what_it_has_is_given() {
    let server = RedisServer::start_with(&["--enable-debug-command", "yes"]);
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let start = Cursor { position: Position::ZERO, ..broker.tail().await.unwrap() };
    broker.push(&[b"one".to_vec(), b"two".to_vec()]).await.unwrap();
    broker.claim("bff", FanOut::All).await.unwrap();
    let page = broker.history(&[Audience::Everyone], &start, 1).await.unwrap();
    // What a promotion does to the name of the data set.
    server.run(&["DEBUG", "CHANGE-REPL-ID"]);
    broker.push(&[b"three".to_vec()]).await.unwrap();
    broker.claim("bff", FanOut::All).await.unwrap();
    assert_eq!(everyone(&broker, &page.reached).await, ["two", "three"]);
    let page = broker.history(&[Audience::Everyone], &page.reached, 10).await.unwrap();
    assert_eq!(crate::bench::gaps(&page), [(GapReason::Epoch, None)]);
    // A reader that is ahead of this server, whose clock may be behind, begins with the epoch.
    let ahead = Cursor { position: Position { ms: u64::MAX >> 12, n: 0 }, ..start };
    assert_eq!(everyone(&broker, &ahead).await, ["three"]);
}

#[tokio::test]
async fn positions_rise_when_the_sequence_is_lost_and_history_was_kept() {
    let server = RedisServer::shared();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let future = "99999999999999-5";
    server.run(&[
        "XADD",
        "{Notification-List}:history:everyone",
        future,
        "claimed_by",
        "x",
        "prev",
        "0-0",
        "entry",
        "old",
    ]);
    broker.push(&[b"new".to_vec()]).await.unwrap();
    let batch = broker.claim("bff", FanOut::All).await.unwrap();
    assert_eq!(batch.claimed[0].stored.position.to_string(), "99999999999999-6");
}

#[tokio::test]
async fn the_tail_of_a_confirmation_is_queried_after_it() {
    let server = RedisServer::start();
    let mut commands =
        Process::spawn("/usr/bin/env", &["redis-cli", "-p", &server.port().to_string(), "MONITOR"], &[]);
    commands.wait_line("OK").await;
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let subscriptions = Subscriptions::default();
    subscriptions.add(Audience::Everyone);
    let place = |word: &str| commands.stdout().iter().position(|line| line.contains(word));
    tokio::select! {
        () = broker.listen(&subscriptions, FanOut::All, |_| {}) => panic!("a listener never ends"),
        () = eventually("both", DEADLINE, async || {
            place("EVALSHA").is_some() && place("fanout:everyone").is_some()
        }) => {}
    }
    assert!(place("fanout:everyone") < place("EVALSHA"), "{:?}", commands.stdout());
}

#[tokio::test]
async fn a_connection_that_answers_nothing_is_detected_and_replaced() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr()).await;
    let bench = Broker::redis(&format!("redis://{}", proxy.addr()), Names::default()).unwrap();
    let subscriptions = Subscriptions::default();
    subscriptions.add(Audience::Everyone);
    let received = std::sync::Mutex::new(Vec::new());
    let downs = || received.lock().unwrap().iter().filter(|event| matches!(event, BrokerEvent::Down)).count();
    let subscribed = || {
        received
            .lock()
            .unwrap()
            .iter()
            .filter(|event| matches!(event, BrokerEvent::Subscribed { .. }))
            .count()
    };
    let listening = bench.listen(&subscriptions, FanOut::All, |event| received.lock().unwrap().push(event));
    let test = async {
        eventually("the subscription", DEADLINE, async || subscribed() == 1).await;
        proxy.black_hole_current();
        eventually("the watchdog", DEADLINE, async || downs() == 1).await;
        eventually("a new subscription", DEADLINE, async || subscribed() == 2).await;
        eventually("commands", DEADLINE, async || bench.push(&[b"hello".to_vec()]).await.is_ok()).await;
        // Also when new connections are swallowed for a while.
        proxy.black_hole();
        eventually("the watchdog", DEADLINE, async || downs() == 2).await;
        assert!(matches!(bench.tail().await, Err(BrokerError::Away(_))));
        proxy.pass();
        eventually("a new subscription", DEADLINE, async || subscribed() == 3).await;
        eventually("commands", DEADLINE, async || bench.tail().await.is_ok()).await;
    };
    tokio::select! {
        () = listening => panic!("a listener never ends"),
        () = test => {}
    }
}

#[tokio::test]
async fn callers_that_wait_for_one_connection_share_its_failure() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr()).await;
    proxy.black_hole();
    let broker = Broker::redis(&format!("redis://{}", proxy.addr()), Names::default()).unwrap();
    let ask = || broker.tail();
    let answers = tokio::join!(ask(), ask(), ask(), ask(), ask(), ask());
    assert!(matches!(answers, (Err(BrokerError::Away(_)), .., Err(BrokerError::Away(_)))));
    assert!(proxy.accepted() <= 2, "{}", proxy.accepted());
}

#[tokio::test]
async fn a_late_failure_of_an_old_connection_spares_the_new_one() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr()).await;
    let broker = Broker::redis(&format!("redis://{}", proxy.addr()), Names::default()).unwrap();
    broker.tail().await.unwrap();
    proxy.black_hole_current();
    let late = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        broker.push(&[b"late".to_vec()]).await
    };
    let early = async {
        assert!(broker.push(&[b"early".to_vec()]).await.is_err());
        broker.tail().await
    };
    let (late, early) = tokio::join!(late, early);
    assert!(late.is_err() && early.is_ok(), "{late:?} {early:?}");
    broker.tail().await.unwrap();
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn a_refusal_by_redis_is_distinct_from_its_absence() {
    let server = RedisServer::start();
    server.run(&["SET", "Notification-List", "not a list"]);
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let refused = broker.push(&[b"a".to_vec()]).await;
    assert!(matches!(&refused, Err(BrokerError::Refused(text)) if text.contains("WRONGTYPE")), "{refused:?}");
    assert!(matches!(broker.claim("bff", FanOut::All).await, Err(BrokerError::Refused(_))));
    server.run(&["CONFIG", "SET", "requirepass", "secret"]);
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    assert!(broker.tail().await.is_err());
    let url = format!("redis://:secret@127.0.0.1:{}", server.port());
    assert!(Broker::redis(&url, Names::default()).unwrap().tail().await.is_ok());
    for url in ["", "127.0.0.1:6379", "http://127.0.0.1", "redis://"] {
        let error = Broker::redis(url, Names::default()).err();
        assert!(matches!(error, Some(BrokerError::Url(_))) || url == "redis://", "{url}: {error:?}");
    }
}

#[tokio::test]
async fn a_command_that_is_not_polled_blocks_no_other() {
    let server = RedisServer::shared();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    // The first begins to connect and the second waits for that; then nobody polls them, as in a select! whose other arm
    // runs.
    let (mut first, mut second) = (pin!(broker.waiting()), pin!(broker.waiting()));
    assert!(poll_immediate(&mut first).await.is_none());
    assert!(poll_immediate(&mut second).await.is_none());
    let third = timeout(DEADLINE, broker.waiting()).await;
    assert_eq!(third.expect("an answer while the others stand still").unwrap(), 0);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (0, 0));
}
