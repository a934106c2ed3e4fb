//! How much is kept on a server, what makes room there, and who shares it.

use std::time::Duration;

use carillon_broker::{
    Broker, BrokerError, BrokerEvent, FanOut, Keep, Names, Retention, Revocation, Settings, Subscriptions,
};
use carillon_harness::{RedisServer, eventually};
use carillon_protocol::{Audience, Cursor, GapReason, Position};

use crate::bench::{DEADLINE, topic};

#[tokio::test]
async fn a_history_loses_what_is_too_old_too_much_and_too_large() {
    let server = RedisServer::start();
    // Redis removes whole nodes of a stream.
    server.run(&["CONFIG", "SET", "stream-node-max-entries", "1"]);
    let keep = |entries, bytes| Keep { age: Duration::from_secs(60), entries, bytes };
    let retention = Retention {
        everyone: keep(1_000, 1 << 30),
        user: keep(10, 1 << 30),
        topic: keep(1_000, 64 * 1_024),
        ..Retention::default()
    };
    let broker = Broker::redis(&server.url(), Settings { retention, ..Settings::default() }).unwrap();
    let [old, crowded, large] = [Audience::Everyone, Audience::User("42".into()), topic("a")]
        .map(|one| Names::default().history(&one));
    let now_ms = broker.tail().await.unwrap().position.ms;
    for n in 1..4 {
        server.run(&["XADD", &old, &format!("{}-{n}", now_ms - 60_001), "entry", "x"]);
    }
    let mut entries = vec![b"new".to_vec()];
    entries.extend((0..15).map(|n| format!(r#"{{"body":"{n}","to":{{"user":"42"}}}}"#).into_bytes()));
    let body = "x".repeat(3_000);
    entries.extend(
        (0..40).map(|n| format!(r#"{{"title":"{n}","body":"{body}","to":{{"topic":"a"}}}}"#).into_bytes()),
    );
    broker.push(&entries).await.unwrap();
    let mut claimed = vec![];
    while broker.waiting().await.unwrap() > 0 {
        claimed.extend(broker.claim("bff", FanOut::All).await.unwrap().claimed);
    }
    assert_eq!(claimed.len(), entries.len());
    assert_eq!(server.cli(&["XLEN", &old]), "1");
    assert_eq!(server.cli(&["XLEN", &crowded]), "10");
    let used: usize = server.cli(&["MEMORY", "USAGE", &large]).parse().unwrap();
    let kept: usize = server.cli(&["XLEN", &large]).parse().unwrap();
    assert!(used <= 64 * 1_024 && kept >= 8, "{kept} entries in {used} bytes");
    let start = Cursor { position: Position::ZERO, ..broker.tail().await.unwrap() };
    let page = broker.history(&[topic("a")], &start, 100).await.unwrap();
    assert_eq!(crate::bench::gaps(&page), [(GapReason::Trimmed, Some(topic("a")))]);
    let newest = page.entries.last().unwrap();
    assert_eq!(newest.stored.position, claimed.last().unwrap().stored.position, "the newest stay");
    // One that is larger than all of it stays alone.
    let huge = format!(r#"{{"body":"b","data":"{}","to":{{"topic":"a"}}}}"#, "x".repeat(62_000));
    broker.push(&[huge.into_bytes()]).await.unwrap();
    broker.claim("bff", FanOut::All).await.unwrap();
    assert_eq!(server.cli(&["XLEN", &large]), "1");
}

#[tokio::test]
async fn a_full_server_is_trimmed_without_a_claim_and_takes_entries_again() {
    let server = RedisServer::start();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let body = "x".repeat(3_000);
    let entry = |n: usize| format!(r#"{{"title":"{n}","body":"{body}"}}"#).into_bytes();
    for round in 0..40 {
        broker.push(&(0..64).map(|n| entry(round * 64 + n)).collect::<Vec<_>>()).await.unwrap();
        broker.claim("bff", FanOut::All).await.unwrap();
    }
    let used = broker.memory_use().await.unwrap().used;
    server.run(&["CONFIG", "SET", "maxmemory", &(used - 100_000).to_string()]);
    let refused = broker.push(&[entry(0)]).await.unwrap_err();
    assert!(matches!(&refused, BrokerError::Away(text) if text.contains("OOM")), "{refused}");
    let refused = broker.claim("bff", FanOut::All).await.unwrap_err();
    assert!(
        matches!(&refused, BrokerError::Away(text) if text.contains("OOM")),
        "also of an empty list: {refused}"
    );
    assert!(broker.memory_use().await.unwrap().share() > 1.0);
    let before = server.cli(&["INFO", "clients"]);
    assert_eq!(
        broker.trim("0", 1.0, Duration::ZERO).await.unwrap().unwrap().entries,
        0,
        "nothing is over its age or bytes"
    );
    let trimmed = broker.trim("0", 0.5, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!((trimmed.cursor.as_str(), trimmed.entries), ("0", 1_280));
    assert!(broker.memory_use().await.unwrap().share() < 1.0);
    broker.push(&[entry(0)]).await.unwrap();
    assert_eq!(broker.claim("bff", FanOut::All).await.unwrap().claimed.len(), 1);
    let connections =
        |info: &str| info.lines().find(|line| line.starts_with("connected_clients")).unwrap().to_owned();
    assert_eq!(
        connections(&before),
        connections(&server.cli(&["INFO", "clients"])),
        "no connection was given up"
    );
}

#[tokio::test]
async fn of_all_replicas_one_begins_to_trim_in_a_period_also_when_the_server_is_full() {
    let server = RedisServer::start();
    let [broker, other] = [(); 2].map(|()| Broker::redis(&server.url(), Names::default()).unwrap());
    let minute = Duration::from_secs(60);
    assert!(other.trim("0", 0.5, Duration::ZERO).await.unwrap().is_some());
    server.run(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(broker.trim("0", 0.5, minute).await.unwrap().is_none());
    let month = 31 * 86_400_000_i64;
    let ago = |ms: i64| server.run(&["PEXPIRE", "{Notification-List}:trimmed", &(month - ms).to_string()]);
    ago(60_000);
    assert!(other.trim("0", 1.0, minute).await.unwrap().is_some());
    assert!(broker.trim("0", 1.0, minute).await.unwrap().is_none());
    ago(-600_000);
    assert!(broker.trim("0", 1.0, minute).await.unwrap().is_some(), "the server's clock was ahead");
}

/// A pair of databases of one server, and a namespace in the first.
#[tokio::test]
async fn namespaces_and_databases_of_one_server_share_nothing() {
    let server = RedisServer::start();
    let open =
        |database: &str, names: Names| Broker::redis(&format!("{}/{database}", server.url()), names).unwrap();
    let shop = Names::in_namespace("shop").unwrap();
    let brokers = [open("0", Names::default()), open("0", shop), open("1", Names::default())];
    let received: [std::sync::Mutex<Vec<BrokerEvent>>; 3] = Default::default();
    let subscriptions: [Subscriptions; 3] = Default::default();
    let ann = Audience::User("ann".into());
    for one in &subscriptions {
        one.add(ann.clone());
    }
    let listen = |n: usize| {
        let received = &received[n];
        brokers[n].listen(&subscriptions[n], FanOut::All, |event| received.lock().unwrap().push(event))
    };
    let is_news = |event: &BrokerEvent| {
        !matches!(
            event,
            BrokerEvent::Up
                | BrokerEvent::Subscribed { .. }
                | BrokerEvent::Echo { .. }
                | BrokerEvent::Writes(_)
        )
    };
    let news = |n: usize| received[n].lock().unwrap().iter().filter(|event| is_news(event)).count();
    let subscribed = |n: usize| {
        received[n].lock().unwrap().iter().any(|event| matches!(event, BrokerEvent::Subscribed { .. }))
    };
    let test = async {
        eventually("all listen", DEADLINE, async || (0..3).all(subscribed)).await;
        for (n, broker) in brokers.iter().enumerate() {
            broker.push(&[br#"{"id":"x","body":"b","to":{"user":"ann"}}"#.to_vec()]).await.unwrap();
            assert_eq!(broker.claim("bff", FanOut::All).await.unwrap().claimed.len(), 1, "its own ids");
            broker.publish_raw("ann", b"raw").await.unwrap();
            broker.set_state("ann", &[("n".to_owned(), n.to_string())].into()).await.unwrap();
            broker.revoke(&Revocation::User { user: "ann".into(), until_s: 1 }).await.unwrap();
        }
        for (n, broker) in brokers.iter().enumerate() {
            assert_eq!(broker.state("ann").await.unwrap()["n"], n.to_string());
            assert_eq!(broker.revocations().await.unwrap().len(), 1);
            // A wake-up, the entry, the raw bytes, the change of the state and the revocation.
            eventually("its own news", DEADLINE, async || news(n) >= 5).await;
        }
        // What would cross has crossed by the time of another round.
        for (n, broker) in brokers.iter().enumerate() {
            broker.publish_raw("ann", b"last").await.unwrap();
            eventually("the last", DEADLINE, async || news(n) >= 6).await;
        }
        assert_eq!([news(0), news(1), news(2)], [6, 6, 6]);
    };
    tokio::select! {
        _ = async { tokio::join!(listen(0), listen(1), listen(2)) } => panic!("a listener never ends"),
        () = test => {}
    }
}
