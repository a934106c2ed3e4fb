//! Signs of life through the whole path: from the server that takes commands to the subscription.

use std::time::Duration;

use carillon_broker::{Broker, BrokerEvent, FanOut, Names, Subscriptions};
use carillon_harness::{Proxy, RedisServer, eventually};
use carillon_protocol::Audience;

use crate::bench::DEADLINE;

/// A proxy that leads commands to one server and a subscription to another, as an address does that moved.
#[tokio::test]
async fn a_listener_on_another_server_notices_within_three_seconds() {
    let (written, listened) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(listened.addr()).await;
    let broker = Broker::redis(&format!("redis://{}", proxy.addr()), Names::default()).unwrap();
    let subscriptions = Subscriptions::default();
    subscriptions.add(Audience::Everyone);
    let events = std::sync::Mutex::new(Vec::new());
    let count = |wanted: fn(&BrokerEvent) -> bool| {
        events.lock().unwrap().iter().filter(|event| wanted(event)).count()
    };
    let listening = broker.listen(&subscriptions, FanOut::All, |event| events.lock().unwrap().push(event));
    let test = async {
        eventually("a sign of life", DEADLINE, async || {
            count(|event| matches!(event, BrokerEvent::Echo { .. })) > 0
        })
        .await;
        // From now on new connections reach the other server; the subscription stays where it is, and so do commands
        // until theirs is gone.
        proxy.lead_to(written.addr());
        listened.run(&["CLIENT", "KILL", "TYPE", "normal"]);
        let moved = std::time::Instant::now();
        eventually("it is noticed", DEADLINE, async || count(|event| *event == BrokerEvent::Down) == 1).await;
        // The bound is 3 s; the rest is for a machine that has much to do.
        assert!(moved.elapsed() < Duration::from_secs(20), "{:?}", moved.elapsed());
        eventually("it listens anew", DEADLINE, async || count(|event| *event == BrokerEvent::Up) == 2).await;
        let subscribed = count(|event| matches!(event, BrokerEvent::Subscribed { .. }));
        eventually("to the other", DEADLINE, async || {
            count(|event| matches!(event, BrokerEvent::Subscribed { .. })) > subscribed.min(1)
        })
        .await;
        broker.push(&[b"after".to_vec()]).await.unwrap();
        broker.claim("bff", FanOut::All).await.unwrap();
        eventually("the entry", DEADLINE, async || {
            count(|event| matches!(event, BrokerEvent::Fanout(_))) == 1
        })
        .await;
    };
    tokio::select! {
        () = listening => panic!("a listener never ends"),
        () = test => {}
    }
}

#[tokio::test]
async fn signs_of_life_show_whether_writes_succeed_and_which_replicas_run() {
    let server = RedisServer::start();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let events = std::sync::Mutex::new(Vec::new());
    let subscriptions = Subscriptions::default();
    let listening = broker.listen(&subscriptions, FanOut::All, |event| events.lock().unwrap().push(event));
    let last_writes = || {
        let events = events.lock().unwrap();
        events.iter().rev().find_map(|event| match event {
            BrokerEvent::Writes(writes) => Some(writes.clone()),
            _ => None,
        })
    };
    let test = async {
        eventually("writes", DEADLINE, async || last_writes() == Some(Ok(()))).await;
        server.run(&["CONFIG", "SET", "maxmemory", "1000"]);
        let is_oom = || last_writes().is_some_and(|writes| writes.is_err_and(|error| error.contains("OOM")));
        eventually("a refusal", DEADLINE, async || is_oom()).await;
        let ups = events.lock().unwrap().iter().filter(|event| **event == BrokerEvent::Up).count();
        assert_eq!(ups, 1, "a full server is received all the same");
        server.run(&["CONFIG", "SET", "maxmemory", "0"]);
        eventually("writes again", DEADLINE, async || last_writes() == Some(Ok(()))).await;
    };
    tokio::select! {
        () = listening => panic!("a listener never ends"),
        () = test => {}
    }
    // Its mode still stands, and so a claim of the other mode takes nothing.
    broker.push(&[b"for all".to_vec()]).await.unwrap();
    let taken = broker.claim("bff", FanOut::Own).await;
    assert!(taken.as_ref().is_err_and(|error| error.to_string().contains("FANOUT=all")), "{taken:?}");
    assert_eq!(broker.waiting().await.unwrap(), 1);
    let other = std::sync::Mutex::new(None);
    let note = |event| {
        if let BrokerEvent::OtherMode(mode) = event {
            *other.lock().unwrap() = Some(mode);
        }
    };
    tokio::select! {
        () = broker.listen(&subscriptions, FanOut::Own, note) => panic!("a listener never ends"),
        () = eventually("a refusal", DEADLINE, async || other.lock().unwrap().is_some()) => {}
    }
    assert_eq!(other.lock().unwrap().as_deref(), Some("all"));
}
