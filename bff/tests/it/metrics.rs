//! Every metric is moved by something that a test can do.

use carillon_bff::metrics::ALL;
use carillon_harness::{DialOptions, Reader, Socket, eventually, free_port};
use carillon_protocol::ServerMessage;
use carillon_protocol::limits::ENTRY_MAX_BYTES;
use serde_json::json;

use crate::people::{KEY, PEOPLE, SECRET, signed_in, token_with};
use crate::upstream::WEBHOOK;
use crate::world::{Bff, DEADLINE, World, entry};

/// What does not move here: nothing waits in the list at the end, and stderr takes its lines (see `supervision.rs`).
const STILL: [&str; 2] = ["carillon_entries_waiting", "carillon_log_lines_dropped_total"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_in_the_list_moves_and_no_other_exists() {
    let world = World::alone();
    let nobody = format!("http://127.0.0.1:{}/keys", free_port());
    let upstream = ["--webhook-secret", WEBHOOK, "--upstream-url", &nobody];
    let allow = ["--allow-jobs", "--allow-anonymous-messages"];
    let args = [&PEOPLE[..], &["--jwks-url", &nobody], &upstream, &allow].concat();
    let bff = Bff::spawn("bff-1", &world.redis.url(), &args);
    bff.until_ready().await;
    let reader = Reader::connect(&bff.ws()).await;
    let expired = r#"{"id":"old","body":"b","expires_at":"2020-01-01T00:00:00Z"}"#;
    world.push([entry("a"), entry("a"), expired.to_owned(), "{".to_owned()]).await;
    reader.wait_for(1).await;
    let body = entry("b");
    let post = reqwest::Client::new()
        .post(bff.http("/api/notifications"))
        .bearer_auth(KEY)
        .header("content-type", "application/json")
        .body(body);
    assert_eq!(post.send().await.unwrap().status(), 202);
    reader.wait_for(2).await;
    let wrong = reqwest::Client::new().put(bff.http("/api/users/ann/state")).bearer_auth("no key of ours");
    assert_eq!(wrong.json(&json!({})).send().await.unwrap().status(), 401);
    let unsigned = reqwest::Client::new().post(bff.http("/api/notifications")).header("webhook-id", "x");
    assert_eq!(unsigned.json(&json!({})).send().await.unwrap().status(), 401);
    let behind =
        reqwest::Client::new().get(bff.http("/api/notifications")).header("x-forwarded-for", "192.0.2.1");
    assert_eq!(behind.send().await.unwrap().status(), 200);
    let mut socket =
        Socket::open(&format!("{}?since=other.1-0", bff.ws()), &DialOptions::default()).await.unwrap();
    socket.send("nonsense").await;
    socket.until_closed().await;
    let mut socket = Socket::open(&bff.ws(), &DialOptions::default()).await.unwrap();
    socket.send(&"x".repeat(ENTRY_MAX_BYTES + 1)).await;
    socket.until_closed().await;
    what_people_do(&world, &bff).await;
    what_jobs_do(&world, &bff).await;
    what_is_said_to_an_application_that_is_away(&world, &bff, &reader).await;
    a_hole(&world, &reader).await;
    what_is_missed_while_the_connection_is_lost(&world, &bff, &reader).await;
    what_cannot_be_read(&world, &bff).await;
    a_redis_that_is_almost_full(&world, &bff).await;
    a_message_that_may_not_be_published(&world, &bff).await;
    world.redis.stop();
    bff.until_not_ready().await;
    for what in ["carillon_claims_failed_total", "carillon_beats_failed_total"] {
        eventually(what, DEADLINE, async || bff.metric(what, "").await > 0.5).await;
    }
    check(&bff).await;
}

/// One reader is refused, one is revoked, and one reads nothing of its direct frames.
async fn what_people_do(world: &World, bff: &Bff) {
    let mut ann = Socket::open(&signed_in(bff, "ann"), &DialOptions::default()).await.unwrap();
    let _ = Socket::open(&format!("{}?token=x", bff.ws()), &DialOptions::default()).await.unwrap_err();
    ann.send(r#"{"type":"subscribe","topic":"closed"}"#).await;
    for _ in 0..2 {
        ann.send(r#"{"type":"send","notification":{"id":"m","to":{"user":"ann"},"body":"b"}}"#).await;
    }
    ann.send(r#"{"type":"ack","ids":[{"from":"ann","id":"m"}]}"#).await;
    let advanced = async || bff.metric("carillon_people_messages_advanced_total", "delivered").await > 0.5;
    eventually("an acknowledgement", DEADLINE, advanced).await;
    world.redis.run(&["ACL", "SETUSER", "default", "-hincrby"]);
    ann.send(r#"{"type":"send","notification":{"id":"untraced","to":{"user":"ann"},"body":"b"}}"#).await;
    let dropped = async || bff.metric("carillon_traces_dropped_total", "").await > 0.5;
    eventually("a trace that cannot be recorded", DEADLINE, dropped).await;
    world.redis.run(&["ACL", "SETUSER", "default", "+hincrby"]);
    world.redis.run(&["PUBLISH", "notify:ann", "heard"]);
    world.redis.run(&["PUBLISH", "notify:ann", &"x".repeat(65_537)]);
    world.redis.run(&["SET", "notify:ann:state", "no hash"]);
    world.redis.run(&["PUBLISH", "notify:ann:state", "x"]);
    let failed = async || bff.metric("carillon_values_failed_total", "").await > 0.5;
    eventually("a state that cannot be read", DEADLINE, failed).await;
    let revoke = reqwest::Client::new().post(bff.http("/api/revocations")).bearer_auth(KEY);
    assert_eq!(revoke.json(&json!({"user": "ann"})).send().await.unwrap().status(), 204);
    ann.until_closed().await;
    // Redis loses it, and gets it back when the connection is there again.
    world.redis.run(&["DEL", "{Notification-List}:revocations"]);
    world.redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let restored = async || bff.metric("carillon_revocations_restored_total", "").await > 0.5;
    eventually("a revocation that is written again", DEADLINE, restored).await;
    let dial = DialOptions { receive_buffer_bytes: Some(4_096), ..DialOptions::default() };
    let mut stuck = Socket::open(&bff.ws(), &dial).await.unwrap();
    let ServerMessage::Welcome(welcome) = ServerMessage::parse(&stuck.text().await).unwrap() else {
        panic!("a welcome comes first");
    };
    let large = |to: &str, n: usize| {
        json!({"id": format!("{to}{n}"), "body": "b", "to": {"connection": to}, "data": "x".repeat(60_000)})
            .to_string()
    };
    let gone = format!("{}0", &welcome.connection[..welcome.connection.len() - 1]);
    let gone = if gone == welcome.connection { format!("{gone}1") } else { gone };
    world.push([large(&gone, 0)]).await;
    for n in 0..300 {
        world.push([large(&welcome.connection, n)]).await;
    }
    let overflows = async || bff.metric("carillon_direct_overflows_total", "").await > 0.5;
    eventually("an overflow", DEADLINE, overflows).await;
}

/// One is done, one is another's, and one was held three times by workers that fell silent.
async fn what_jobs_do(world: &World, bff: &Bff) {
    let silent = "{Notification-List}:job:silent";
    let (to, name) = (r#"{"user":"ann"}"#, "a job");
    let fields = ["id", "silent", "owner", "user:ann", "to", to, "name", name, "input", "{}", "attempt", "3"];
    let left = ["progress", "0", "status", "running", "created_at", "0", "updated_at", "0"];
    world.redis.run(&[&["HSET", silent][..], &fields, &left].concat());
    world.redis.run(&["ZADD", "{Notification-List}:jobs", "0", "silent"]);
    let token = token_with(SECRET, json!({"user_id": "cem"}));
    let post = |id: &str| {
        let request = reqwest::Client::new().post(bff.http("/api/jobs")).bearer_auth(&token);
        request.json(&json!({"id": id, "steps": 1})).send()
    };
    assert_eq!(post("j").await.unwrap().status(), 202);
    // Five of hers are to be done, so that the next is refused.
    let waits = "{Notification-List}:job:waits";
    world.redis.run(&["HSET", waits, "status", "queued"]);
    world.redis.run(&[
        "LPUSH",
        "{Notification-List}:jobs:user:cem",
        "waits",
        "waits",
        "waits",
        "waits",
        "waits",
    ]);
    assert_eq!(post("sixth").await.unwrap().status(), 429);
    let ended = async || bff.metric("carillon_jobs_ended_total", "done").await > 0.5;
    eventually("a job that is done", DEADLINE, ended).await;
}

async fn what_is_said_to_an_application_that_is_away(world: &World, bff: &Bff, reader: &Reader) {
    reader.send(r#"{"type":"message","id":"m","message":"hello"}"#).await;
    let failed = async || bff.metric("carillon_upstream_attempts_total", "failed").await > 0.5;
    eventually("an attempt that fails", DEADLINE, failed).await;
    let id = world.redis.cli(&["HKEYS", "{Notification-List}:outbox:messages"]);
    // It has waited for a day.
    world.redis.run(&["HINCRBY", "{Notification-List}:outbox:since", &id, "-86400000"]);
    let buried = async || bff.metric("carillon_upstream_undeliverable_total", "").await > 0.5;
    eventually("the last one", DEADLINE, buried).await;
    // The sender is notified.
    reader.wait_for(3).await;
}

/// Two entries come into history, and only the second is published.
async fn a_hole(world: &World, reader: &Reader) {
    let tail = world.broker.tail().await.unwrap();
    let (ms, history) = (tail.position.ms + 1, "{Notification-List}:history:everyone");
    let (first, second, prev) = (format!("{ms}-1"), format!("{ms}-2"), tail.position.to_string());
    for (position, prev) in [(&first, &prev), (&second, &first)] {
        let fields =
            ["format", "1", "claimed_by", "bff-9", "kind", "notification", "prev", prev, "entry", "x"];
        world.redis.run(&[&["XADD", history, position][..], &fields].concat());
    }
    world.redis.run(&["HSET", "{Notification-List}:sequence", "last", &second]);
    let payload = format!("{} bff-9\n{second} {first} notification 1\nx", tail.epoch);
    world.redis.run(&["PUBLISH", "{Notification-List}:fanout:everyone", &payload]);
    let ids = reader.wait_for(5).await.into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids[3..], [first, second], "the one that was never heard comes from history");
}

/// What is published between two connections is read once for all readers.
async fn what_is_missed_while_the_connection_is_lost(world: &World, bff: &Bff, reader: &Reader) {
    let refilled = async || {
        world.redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        world.push([entry(fastrand::u64(..))]).await;
        bff.metric("carillon_rings_refilled_total", "").await > 0.5
    };
    eventually("a refill", DEADLINE, refilled).await;
    world.push([entry("after the refill")]).await;
    reader.until("what follows", |record| record.ids().contains(&"after the refill")).await;
}

/// An entry of a history without its fields, and a history that may not be read.
async fn what_cannot_be_read(world: &World, bff: &Bff) {
    let tail = world.broker.tail().await.unwrap();
    let position = format!("{}-0", tail.position.ms + 1);
    world.redis.run(&["XADD", "{Notification-List}:history:everyone", &position, "x", "y"]);
    world.redis.run(&["HSET", "{Notification-List}:sequence", "last", &position]);
    let url = format!("{}?since={tail}", bff.ws());
    Socket::open(&url, &DialOptions::default()).await.unwrap();
    assert!(bff.metric("carillon_history_unreadable_total", "").await > 0.5);
    world.redis.run(&["ACL", "SETUSER", "default", "-xrange"]);
    Socket::open(&url, &DialOptions::default()).await.unwrap_err();
    assert!(bff.metric("carillon_history_reads_failed_total", "").await > 0.5);
    world.redis.run(&["ACL", "SETUSER", "default", "+xrange"]);
}

async fn a_redis_that_is_almost_full(world: &World, bff: &Bff) {
    let info = world.redis.cli(&["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let used: u64 = used.trim().parse().unwrap();
    world.redis.run(&["CONFIG", "SET", "maxmemory", &(used * 102 / 100).to_string()]);
    let trimmed = async || bff.metric("carillon_history_trimmed_total", "").await > 0.5;
    eventually("older entries go", DEADLINE, trimmed).await;
    world.redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
}

async fn a_message_that_may_not_be_published(world: &World, bff: &Bff) {
    world.redis.run(&["ACL", "SETUSER", "default", "-publish"]);
    world.redis.run(&["LPUSH", "Notification-List", "quiet"]);
    let counted = async || bff.metric("carillon_claim_faults_total", "").await > 0.5;
    eventually("the fault is counted", DEADLINE, counted).await;
}

async fn check(bff: &Bff) {
    let (_, text) = bff.admin("/metrics").await;
    let found: std::collections::BTreeSet<_> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect();
    let listed: std::collections::BTreeSet<_> = ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, listed);
    for &(name, meaning) in ALL {
        assert!(text.contains(&format!("# HELP {name} {meaning}")), "{name}");
        assert!(STILL.contains(&name) || bff.metric(name, "").await > 0.5, "{name} never moved");
    }
}
