#![allow(clippy::unwrap_used, reason = "a test")]

mod interval;
mod options;
mod outage;
mod stdin;

use std::time::Duration;

use carillon_broker::{Broker, FanOut, Names};
use carillon_harness::{Process, RedisServer};
use carillon_protocol::Notification;

/// Ends a test that has failed.
const DEADLINE: Duration = Duration::from_secs(60);

fn producer(redis_url: &str, args: &[&str]) -> Process {
    Process::spawn(env!("CARGO_BIN_EXE_producer"), args, &[("REDIS_URL", redis_url)])
}

/// Claims all that waits, as a replica does: the notifications in order, repeated pushes dropped.
async fn claim_all(server: &RedisServer) -> Vec<Notification> {
    claim(&Broker::redis(&server.url(), Names::default()).unwrap()).await
}

async fn claim(broker: &Broker) -> Vec<Notification> {
    let mut notifications = Vec::new();
    loop {
        let batch = broker.claim("test", FanOut::All).await.unwrap();
        assert!(batch.refused.is_empty(), "{:?}", batch.refused);
        for claimed in &batch.claimed {
            let json = std::str::from_utf8(&claimed.stored.raw).unwrap();
            notifications.push(Notification::check(json).unwrap());
        }
        if batch.waiting == 0 {
            return notifications;
        }
    }
}

fn bodies(notifications: &[Notification]) -> Vec<&str> {
    notifications.iter().map(|one| one.body.as_str()).collect()
}

/// The numbers in the titles of made-up notifications.
fn numbers(notifications: &[Notification]) -> Vec<u64> {
    let number = |title: &str| title.split(' ').find_map(|word| word.parse().ok());
    notifications.iter().map(|one| number(&one.title).expect(&one.title)).collect()
}
