//! Readers of several audiences, at the seam where identity will be added.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use carillon_bff::feed::{Feeds, Reader};
use carillon_bff::hub::Hub;
use carillon_bff::refill::Refiller;
use carillon_bff::{now_ms, random};
use carillon_broker::{Broker, BrokerEvent, FanOut, Names, Subscriptions};
use carillon_harness::{RedisServer, eventually};
use carillon_protocol::received::Delivered;
use carillon_protocol::{Audience, CloseCode, Cursor, Position, Resume, ServerMessage};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::world::DEADLINE;

/// A hub that receives the events of a broker, without a port.
struct Replica {
    feeds: Arc<Feeds>,
    hub: Arc<Hub>,
    _stop: DropGuard,
}

impl Replica {
    fn new(broker: &Broker) -> Self {
        let subscriptions = Subscriptions::default();
        let hub = Arc::new(Hub::new(FanOut::All, subscriptions.clone()));
        let feeds =
            Feeds::new(Arc::clone(&hub), broker.clone(), FanOut::All, Arc::new(now_ms), Arc::new(random));
        let stop = CancellationToken::new();
        let refiller = Refiller::new(broker.clone(), Arc::clone(&hub));
        TaskTracker::new().spawn(refiller.run(stop.clone()));
        let (broker, hearing, stopped) = (broker.clone(), Arc::clone(&hub), stop.clone());
        TaskTracker::new().spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = broker.listen(&subscriptions, FanOut::All, |event| take(&hearing, event)) => {}
            }
        });
        Self { feeds, hub, _stop: stop.drop_guard() }
    }
}

/// Passes an event to a hub like its replica.
fn take(hub: &Hub, event: BrokerEvent) {
    match event {
        BrokerEvent::Subscribed { audiences, tail } => hub.subscribed(&audiences, &tail),
        BrokerEvent::Fanout(fanout) => hub.fanout(&fanout),
        BrokerEvent::Echo { tail } => hub.echo(&tail),
        BrokerEvent::Down => hub.connection_lost(),
        _ => {}
    }
}

fn reader(audiences: impl Into<Arc<[Audience]>>, since: Option<Cursor>) -> Reader {
    Reader { id: fastrand::u64(..), audiences: audiences.into(), since, network: None }
}

fn notification(frame: &str) -> (Cursor, String) {
    match ServerMessage::parse(frame).unwrap() {
        ServerMessage::Notification(Delivered { cursor, notification, .. }) => {
            let notification: carillon_protocol::Notification =
                serde_json::from_str(notification.get()).unwrap();
            (cursor.parse().unwrap(), notification.id)
        }
        other => panic!("a notification was expected, and {other:?} came"),
    }
}

fn entry(id: usize, to: &Audience) -> Vec<u8> {
    serde_json::json!({ "id": id.to_string(), "body": "b", "to": to }).to_string().into_bytes()
}

/// Reads with many short-lived feeds, each resuming where the last was dropped, while entries are pushed.
async fn resumes_without_skipping(broker: Broker) {
    let replica = Replica::new(&broker);
    let audiences: Arc<[Audience]> = [Audience::Topic("news".into()), Audience::User("42".into())].into();
    let others = [Audience::Everyone, Audience::User("43".into())];
    let mut random = fastrand::Rng::with_seed(11);
    let mut expected = vec![];
    let mut seen = vec![];
    let mut since = Some(broker.tail().await.unwrap());
    for round in 0..150 {
        let mut entries = vec![];
        for n in 0..random.usize(0..20) {
            let id = round * 100 + n;
            let ours = random.u8(..4) > 0;
            let to = if ours {
                &audiences[usize::from(random.bool())]
            } else {
                &others[usize::from(random.bool())]
            };
            if ours {
                expected.push(id.to_string());
            }
            entries.push(entry(id, to));
        }
        broker.push(&entries).await.unwrap();
        while broker.claim("bff-1", FanOut::All).await.unwrap().waiting > 0 {}

        let reader = reader(Arc::clone(&audiences), since.clone());
        let (mut feed, joined) = replica.feeds.join(reader).await.unwrap();
        assert_eq!(joined.resume, Resume::Complete);
        while seen.len() < expected.len() {
            let output = feed.next().await;
            // Dropped in the middle of an output: the rest was never seen.
            let taken =
                if random.u8(..3) == 0 { random.usize(..=output.frames.len()) } else { output.frames.len() };
            for frame in &output.frames[..taken] {
                let (cursor, id) = notification(&frame.text);
                seen.push(id);
                since = Some(cursor);
            }
            if taken < output.frames.len() || random.u8(..4) == 0 {
                break;
            }
        }
    }
    let reader = reader(audiences, since);
    let (mut feed, _) = replica.feeds.join(reader).await.unwrap();
    while seen.len() < expected.len() {
        seen.extend(feed.next().await.frames.iter().map(|frame| notification(&frame.text).1));
    }
    assert_eq!(seen, expected);
    drop(feed);
    assert_eq!(replica.hub.readers(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_two_audiences_resumes_without_skipping_either_on_redis() {
    let server = RedisServer::shared();
    resumes_without_skipping(Broker::redis(&server.url(), Names::default()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_two_audiences_resumes_without_skipping_either_in_memory() {
    resumes_without_skipping(Broker::memory(Arc::new(now_ms)).0).await;
}

/// The cursor of a reader does not include frames of its resume that it has not taken.
async fn keeps_its_cursor_until_it_takes_more(broker: Broker) {
    let replica = Replica::new(&broker);
    let start = broker.tail().await.unwrap();
    broker.push(&[entry(1, &Audience::Everyone), entry(2, &Audience::Everyone)]).await.unwrap();
    while broker.claim("bff-1", FanOut::All).await.unwrap().waiting > 0 {}
    let reader = reader([Audience::Everyone], Some(start.clone()));
    let (mut feed, joined) = replica.feeds.join(reader).await.unwrap();
    assert_eq!((&joined.cursor, feed.cursor().as_ref()), (&start, Some(&start)));
    let frames = feed.next().await.frames;
    let (last, _) = notification(&frames.last().unwrap().text);
    assert_eq!((frames.len(), feed.cursor()), (2, Some(last)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_keeps_its_cursor_until_it_takes_more_on_redis() {
    let server = RedisServer::shared();
    keeps_its_cursor_until_it_takes_more(Broker::redis(&server.url(), Names::default()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_keeps_its_cursor_until_it_takes_more_in_memory() {
    keeps_its_cursor_until_it_takes_more(Broker::memory(Arc::new(now_ms)).0).await;
}

/// A reloaded page: the only reader leaves and reconnects with much to catch up, and nothing new is published.
async fn catches_up_in_silence(broker: Broker) {
    let replica = Replica::new(&broker);
    let audiences: Arc<[Audience]> = [Audience::Everyone].into();
    let start = broker.tail().await.unwrap();
    for n in 0..1_000 {
        broker.push(&[entry(n, &Audience::Everyone)]).await.unwrap();
    }
    while broker.claim("bff-1", FanOut::All).await.unwrap().waiting > 0 {}
    for _ in 0..20 {
        let reader = reader(Arc::clone(&audiences), Some(start.clone()));
        let (mut feed, _) = replica.feeds.join(reader).await.unwrap();
        let mut count = 0;
        while count < 1_000 {
            count += feed.next().await.frames.len();
        }
        assert_eq!(count, 1_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_reconnects_in_a_quiet_moment_catches_up_on_redis() {
    let server = RedisServer::shared();
    catches_up_in_silence(Broker::redis(&server.url(), Names::default()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_reconnects_in_a_quiet_moment_catches_up_in_memory() {
    catches_up_in_silence(Broker::memory(Arc::new(now_ms)).0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_history_cannot_serve_retries_with_back_off() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // The engine looks at its clock once a read.
    let (broker, _faults) = Broker::memory(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        now_ms()
    }));
    let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
    let feeds = Feeds::new(Arc::clone(&hub), broker.clone(), FanOut::All, Arc::new(now_ms), Arc::new(random));
    let since = Some(broker.tail().await.unwrap());
    let reader = reader([Audience::Everyone], since);
    let (mut feed, _) = feeds.join(reader).await.unwrap();
    // The hub has received an epoch that the history does not have.
    let tail = Cursor { epoch: "other".into(), position: Position::ZERO };
    hub.subscribed(&[(Audience::Everyone, None)], &tail);
    assert!(tokio::time::timeout(Duration::from_secs(1), feed.next()).await.is_err());
    let asked = asked.load(Ordering::SeqCst);
    assert!((3..100).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn readers_at_the_same_cursor_share_a_read() {
    let looks = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&looks);
    // The engine looks at its clock once a read.
    let (broker, _faults) = Broker::memory(Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        now_ms()
    }));
    let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
    let feeds = Feeds::new(Arc::clone(&hub), broker.clone(), FanOut::All, Arc::new(now_ms), Arc::new(random));
    let since = broker.tail().await.unwrap();
    hub.subscribed(&[(Audience::Everyone, None)], &since);
    let mut readers = vec![];
    for _ in 0..200 {
        let (feed, _) = feeds.join(reader([Audience::Everyone], Some(since.clone()))).await.unwrap();
        readers.push(feed);
    }
    // What comes now is not received, and the tail of the next confirmation shows it.
    broker.push(&[entry(1, &Audience::Everyone)]).await.unwrap();
    broker.claim("bff-1", FanOut::All).await.unwrap();
    let tail = broker.tail().await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    let before = looks.load(Ordering::SeqCst);
    hub.subscribed(&[(Audience::Everyone, None)], &tail);
    let outputs = futures_util::future::join_all(readers.iter_mut().map(|feed| feed.next())).await;
    assert!(outputs.iter().all(|output| output.frames.len() == 1));
    let reads = looks.load(Ordering::SeqCst) - before;
    assert!((1..10).contains(&reads), "{reads} reads for 200 readers");
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_history_is_refused_for_a_minute_is_closed() {
    let (broker, faults) = Broker::memory(Arc::new(now_ms));
    let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
    let feeds = Feeds::new(Arc::clone(&hub), broker.clone(), FanOut::All, Arc::new(now_ms), Arc::new(random));
    let since = Some(broker.tail().await.unwrap());
    let (mut feed, _) = feeds.join(reader([Audience::Everyone], since)).await.unwrap();
    // Whatever makes the reader read, Redis refuses it, and goes on to do so.
    faults.run(&["DEL", "{Notification-List}:sequence"]);
    faults.run(&["SET", "{Notification-List}:sequence", "not a hash"]);
    let tail = Cursor { epoch: "other".into(), position: Position::ZERO };
    hub.subscribed(&[(Audience::Everyone, None)], &tail);
    let begun = tokio::time::Instant::now();
    assert_eq!(feed.next().await.close, Some(CloseCode::INTERNAL));
    let took = begun.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(120)).contains(&took), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audience_is_subscribed_as_long_as_it_has_a_reader() {
    let server = RedisServer::shared();
    let replica = Replica::new(&Broker::redis(&server.url(), Names::default()).unwrap());
    let channels = async |count| {
        eventually("the subscriptions", DEADLINE, async || {
            server.cli(&["PUBSUB", "CHANNELS", "*fanout*"]).split_whitespace().count() == count
        })
        .await;
    };
    let users = |names: &[&str]| names.iter().map(|name| Audience::User((*name).into())).collect::<Vec<_>>();
    let (one, two) = (reader(users(&["1", "2"]), None), reader(users(&["2"]), None));
    let (one, two) = (replica.feeds.join(one).await.unwrap(), replica.feeds.join(two).await.unwrap());
    channels(2).await;
    drop(one);
    channels(1).await;
    drop(two);
    channels(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_reader_gets_what_is_for_it_and_nothing_else() {
    let (broker, _faults) = Broker::memory(Arc::new(now_ms));
    let replicas: Vec<_> = (0..3).map(|_| Replica::new(&broker)).collect();
    let users: Vec<_> = (0..300).map(|n| Audience::User(n.to_string())).collect();
    let mut feeds = vec![];
    for (n, user) in users.iter().enumerate() {
        let reader = reader([Audience::Everyone, user.clone()], None);
        feeds.push(replicas[n % 3].feeds.join(reader).await.unwrap().0);
    }
    for (n, user) in users.iter().enumerate() {
        broker.push(&[entry(n, user)]).await.unwrap();
    }
    broker.push(&[entry(1_000, &Audience::Everyone)]).await.unwrap();
    while broker.claim("bff-1", FanOut::All).await.unwrap().waiting > 0 {}
    for (n, feed) in feeds.iter_mut().enumerate() {
        let mut got = vec![];
        while got.len() < 2 {
            got.extend(feed.next().await.frames.iter().map(|frame| notification(&frame.text).1));
        }
        assert_eq!(got, [n.to_string(), "1000".to_owned()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_notifications_are_not_sent() {
    let (broker, _faults) = Broker::memory(Arc::new(now_ms));
    let replica = Replica::new(&broker);
    let since = Some(broker.tail().await.unwrap());
    let expired = br#"{"id":"old","body":"b","expires_at":"2020-01-01T00:00:00Z"}"#.to_vec();
    let lasting = br#"{"id":"new","body":"b","expires_at":"2999-01-01T00:00:00Z"}"#.to_vec();
    broker.push(&[expired, lasting]).await.unwrap();
    broker.claim("bff-1", FanOut::All).await.unwrap();
    let (mut feed, _) = replica.feeds.join(reader([Audience::Everyone], since)).await.unwrap();
    let output = feed.next().await;
    assert_eq!(output.frames.iter().map(|frame| notification(&frame.text).1).collect::<Vec<_>>(), ["new"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_subscriptions_replies_and_data_leave_a_feed_complete_or_with_a_gap() {
    let (broker, faults) = Broker::memory(Arc::new(now_ms));
    let replica = Replica::new(&broker);
    let (mut feed, _) = replica.feeds.join(reader([Audience::Everyone], None)).await.unwrap();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..100 {
        match random.u8(..4) {
            0 => faults.cut_subscribers(),
            1 => faults.lose_next_reply(),
            _ => {}
        }
        broker.push(&[entry(round, &Audience::Everyone)]).await.unwrap();
        let _ = broker.claim("bff-1", FanOut::All).await;
        if random.bool() {
            for frame in feed.next().await.frames {
                *counts.entry(notification(&frame.text).1).or_default() += 1;
            }
        }
    }
    while counts.len() < 100 {
        for frame in feed.next().await.frames {
            *counts.entry(notification(&frame.text).1).or_default() += 1;
        }
    }
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");

    let earlier = faults.remember();
    broker.push(&[entry(200, &Audience::Everyone)]).await.unwrap();
    broker.claim("bff-1", FanOut::All).await.unwrap();
    assert_eq!(notification(&feed.next().await.frames[0].text).1, "200");
    earlier();
    broker.push(&[entry(201, &Audience::Everyone)]).await.unwrap();
    broker.claim("bff-1", FanOut::All).await.unwrap();
    let output = feed.next().await;
    assert!(
        matches!(ServerMessage::parse(&output.gaps[0]).unwrap(), ServerMessage::Gap(_)),
        "{:?}",
        output.gaps
    );
    let frames = output.frames;
    assert_eq!(notification(&frames.last().unwrap().text).1, "201");
}
