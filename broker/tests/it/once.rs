use std::time::Duration;

use carillon_broker::limits::USED_KEY_MAX_BYTES;
use carillon_broker::{Broker, BrokerError, Names};
use carillon_harness::{RedisServer, eventually};

use crate::bench::{Bench, DEADLINE};
use crate::on_both_engines;

const LONG: Duration = Duration::from_secs(600);

on_both_engines!(
    a_key_has_one_first_use_however_many_ask,
    a_key_is_free_again_when_its_time_is_over,
    a_key_has_a_bound,
);

async fn a_key_has_one_first_use_however_many_ask(bench: Bench) {
    let ask = async |key: &str| bench.broker.first_use(key, LONG).await.unwrap();
    let all = futures_util::future::join_all((0..20).map(|_| ask("signature a"))).await;
    assert_eq!(all.iter().filter(|first| **first).count(), 1);
    assert!(ask("signature b").await && ask("").await && !ask("").await);
}

async fn a_key_is_free_again_when_its_time_is_over(bench: Bench) {
    assert!(
        bench.broker.first_use("short", Duration::ZERO).await.unwrap(),
        "a time too short is a short one"
    );
    assert!(bench.broker.first_use("long", LONG).await.unwrap());
    let again = async || bench.broker.first_use("short", Duration::from_millis(1)).await.unwrap();
    eventually("the end of its time", DEADLINE, again).await;
    assert!(!bench.broker.first_use("long", Duration::from_millis(1)).await.unwrap());
}

async fn a_key_has_a_bound(bench: Bench) {
    let key = "x".repeat(USED_KEY_MAX_BYTES);
    assert!(bench.broker.first_use(&key, LONG).await.unwrap());
    assert!(matches!(bench.broker.first_use(&(key + "x"), LONG).await, Err(BrokerError::Refused(_))));
}

#[tokio::test]
async fn no_key_is_kept_for_ever() {
    let server = RedisServer::shared();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    assert!(broker.first_use("a", Duration::MAX).await.unwrap());
    let kept_ms: u64 = server.cli(&["PTTL", "{Notification-List}:used:a"]).parse().unwrap();
    let day_ms = 24 * 60 * 60 * 1_000;
    assert!((6 * day_ms..=7 * day_ms).contains(&kept_ms), "{kept_ms}");
}
