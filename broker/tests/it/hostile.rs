//! A Redis that others write to, or that does not let us do everything.

use carillon_broker::{Batch, Broker, BrokerError, DeadList, EntryKind, FanOut, Names};
use carillon_harness::RedisServer;
use carillon_protocol::{Audience, Cursor, Position};

use crate::bench::{claimed, entry, text, topic};

struct Hostile {
    server: RedisServer,
    broker: Broker,
}

impl Hostile {
    fn new() -> Self {
        let server = RedisServer::start();
        let broker = Broker::redis(&server.url(), Names::default()).unwrap();
        Self { server, broker }
    }

    /// A broker of a user who may do everything but what `less` takes away.
    fn user(&self, less: &str) -> Broker {
        let words = "ACL SETUSER less reset on >secret ~* &* +@all".split(' ').chain(less.split(' '));
        self.server.run(&words.collect::<Vec<_>>());
        let url = format!("redis://less:secret@127.0.0.1:{}", self.server.port());
        Broker::redis(&url, Names::default()).unwrap()
    }

    async fn push(&self, entries: &[String]) {
        let entries: Vec<_> = entries.iter().map(|entry| entry.clone().into_bytes()).collect();
        self.broker.push(&entries).await.unwrap();
    }

    async fn claim(&self) -> Batch {
        self.broker.claim("bff", FanOut::All).await.unwrap()
    }

    async fn history(&self, name: &str) -> Vec<String> {
        let since = Cursor { position: Position::ZERO, ..self.broker.tail().await.unwrap() };
        let page = self.broker.history(&[topic(name)], &since, 100).await.unwrap();
        page.entries.iter().map(|recalled| text(&recalled.stored.raw)).collect()
    }
}

#[tokio::test]
async fn entries_for_a_history_that_is_not_a_stream_go_to_the_dead_list() {
    let hostile = Hostile::new();
    let key = Names::default().history(&topic("b"));
    hostile.server.run(&["SET", &key, "no stream"]);
    let entries = [entry("1", "a"), entry("2", "b"), entry("3", "a")];
    hostile.push(&entries).await;
    let batch = hostile.claim().await;
    assert_eq!(claimed(std::slice::from_ref(&batch)), [entries[0].clone(), entries[2].clone()]);
    assert_eq!((batch.waiting, batch.faults.len()), (0, 0));
    let refused = &batch.refused[0];
    assert!(refused.reason == "no_history" && refused.detail.contains(&key), "{refused:?}");
    assert_eq!(text(&hostile.broker.dead(DeadList::Producers).await.unwrap()[0].raw), entries[1]);
    assert_eq!(hostile.history("b").await.len(), 0, "and a reader of it is not turned away");
    // It was not taken as seen.
    hostile.server.run(&["DEL", &key]);
    hostile.push(&entries[1..2]).await;
    assert_eq!(hostile.claim().await.claimed.len(), 1);
}

#[tokio::test]
async fn a_history_that_ends_beyond_what_can_be_counted_takes_nothing_and_harms_no_other() {
    let hostile = Hostile::new();
    let last = format!("{}-{}", u64::MAX, u64::MAX);
    hostile.server.run(&["XADD", &Names::default().history(&topic("b")), &last, "x", "y"]);
    hostile.push(&[entry("1", "b"), entry("2", "a")]).await;
    let batch = hostile.claim().await;
    assert_eq!((batch.claimed.len(), batch.refused[0].reason.as_str()), (1, "no_history"));
    hostile.broker.tail().await.unwrap();
}

#[tokio::test]
async fn a_refused_publish_is_reported_and_stored_in_history_once() {
    let hostile = Hostile::new();
    let broker = hostile.user("resetchannels &Notification-Channel");
    let entries = [entry("1", "a"), entry("2", "b"), entry("3", "a")];
    hostile.push(&entries).await;
    let batch = broker.claim("bff", FanOut::All).await.unwrap();
    assert_eq!((batch.claimed.len(), batch.waiting), (3, 0));
    assert_eq!(batch.faults.len(), 3, "{:?}", batch.faults);
    assert!(batch.faults.iter().all(|fault| fault.contains("channel")), "{:?}", batch.faults);
    assert_eq!(broker.claim("bff", FanOut::All).await.unwrap().claimed.len(), 0);
    assert_eq!(hostile.history("a").await, [entries[0].clone(), entries[2].clone()]);
}

/// Whatever a user may not do, no entry is lost or doubled, and once it may, the rest goes on.
#[tokio::test]
async fn a_claim_without_permission_ends_before_the_entry_and_resumes_there() {
    let all = "+eval +evalsha +script +info +time +hmget +hset +lindex +ltrim +llen +scard +sismember +sadd \
               +xadd +xtrim +xinfo +pexpire +publish +unlink";
    for less in all.split(' ').map(|right| right.replace('+', "-")).chain([
        // One history cannot be written, or not the dead list.
        "resetkeys ~Notification-List ~{Notification-List}:[sid]* ~{Notification-List}:history:topic:a"
            .into(),
        "resetkeys ~Notification-List ~{Notification-List}:[sih]*".into(),
    ]) {
        let hostile = Hostile::new();
        let broker = hostile.user(&less);
        // The sequence is there, so that the first to be refused is somewhere in the middle.
        hostile.claim().await;
        // Two of them without an id, so that nothing but the claim itself keeps them from being doubled.
        let plain = |body: &str| format!(r#"{{"body":"{body}","to":{{"topic":"a"}}}}"#);
        let entries = [plain("1"), "{".to_owned(), entry("2", "b"), plain("3")];
        hostile.push(&entries).await;
        let mut failures = 0;
        for _ in 0..5 {
            match broker.claim("bff", FanOut::All).await {
                Ok(_) => {}
                Err(BrokerError::Refused(_)) => failures += 1,
                Err(error) => panic!("{less}: {error}"),
            }
        }
        let rest = hostile.claim().await;
        assert!(rest.waiting == 0 && rest.faults.is_empty(), "{less}: {rest:?}");
        assert!(failures > 0 || rest.taken() == 0, "{less}: what remained was reported");
        assert_eq!(hostile.history("a").await, [entries[0].clone(), entries[3].clone()], "{less}");
        assert_eq!(hostile.history("b").await, entries[2..3], "{less}");
        assert_eq!(hostile.broker.dead(DeadList::Producers).await.unwrap().len(), 1, "{less}");
    }
}

#[tokio::test]
async fn one_claim_reads_one_of_several_huge_entries() {
    let hostile = Hostile::new();
    let huge = "for _ = 1, 5 do redis.call('LPUSH', KEYS[1], string.rep('x', 40000000)) end";
    hostile.server.run(&["EVAL", huge, "1", "Notification-List"]);
    for waiting in (0..5).rev() {
        let batch = hostile.claim().await;
        assert_eq!((batch.refused[0].reason.as_str(), batch.waiting), ("too_large", waiting));
    }
    hostile.server.run(&["RPUSH", "Notification-List", "small"]);
    hostile.server.run(&["EVAL", huge, "1", "Notification-List"]);
    let calls = |command: &str| -> u64 {
        let stats = hostile.server.cli(&["INFO", "commandstats"]);
        let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:calls=")));
        line.and_then(|line| line.split(['=', ',']).nth(1)).map_or(0, |calls| calls.parse().unwrap())
    };
    let (looked, copied) = (calls("lindex"), calls("lrange"));
    assert_eq!(hostile.claim().await.taken(), 2);
    assert_eq!((calls("lindex") - looked, calls("lrange") - copied), (2, 0), "the small one and a huge one");
}

#[tokio::test]
async fn kinds_of_a_later_version_and_entries_of_others_are_stepped_over() {
    let hostile = Hostile::new();
    hostile.push(&[entry("1", "a")]).await;
    hostile.claim().await;
    let key = Names::default().history(&topic("a"));
    let at = hostile.broker.tail().await.unwrap().position;
    let (second, third) = (format!("{}-{}", at.ms, at.n + 1), format!("{}-{}", at.ms, at.n + 2));
    hostile.server.run(&["XADD", &key, &second, "something", "else"]);
    let fields = ["claimed_by", "bff", "kind", "smell", "prev", &second, "entry", "{}", "new", "x"];
    hostile.server.run(&[&["XADD", &key, &third][..], &fields].concat());
    hostile.push(&[entry("2", "a")]).await;
    let batch = hostile.claim().await;
    assert_eq!(batch.claimed[0].stored.prev.to_string(), third);
    let since = Cursor { position: Position::ZERO, ..hostile.broker.tail().await.unwrap() };
    let page = hostile.broker.history(&[topic("a"), Audience::Everyone], &since, 100).await.unwrap();
    let kinds: Vec<_> = page.entries.iter().map(|recalled| recalled.stored.kind).collect();
    assert_eq!(kinds, [EntryKind::Notification, EntryKind::Unknown, EntryKind::Notification]);
    assert!(page.ended && page.reached.position == batch.claimed[0].stored.position);
}

#[tokio::test]
async fn missing_permission_for_the_end_of_a_history_is_reported() {
    let hostile = Hostile::new();
    let broker = hostile.user("-xinfo");
    let since = broker.tail().await.unwrap();
    let answer = broker.history(&[topic("a")], &since, 1).await;
    assert!(matches!(answer, Err(BrokerError::Refused(_))), "{answer:?}");
}
