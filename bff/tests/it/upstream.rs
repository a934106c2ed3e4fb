//! Messages of readers to the application: stored first, signed, in order, and at least once.

pub(crate) mod application;
mod given_up;
mod limited;

use std::collections::BTreeSet;
use std::time::Duration;

use carillon_bff::signed::{Signing, SigningOptions};
use carillon_bff::{Upstream, UpstreamOptions};
use carillon_broker::DeadList;
use carillon_harness::{Reader, Record, eventually, free_port};
use serde_json::{Value, json};

use crate::people::{PEOPLE, token};
use crate::world::{Bff, DEADLINE, World, in_process_with};
pub(crate) use application::WEBHOOK;
use application::{Answer, Application, LEGACY, Post};

/// A message that a dead replica held waits for the end of its lease, 15 s.
const TAKEN_OVER: Duration = Duration::from_secs(60);

async fn replica(world: &World, name: &str, upstream: &str) -> Bff {
    let own = ["--webhook-secret", WEBHOOK, "--apiauth-secret", LEGACY, "--upstream-url", upstream];
    let allow = ["--allow-anonymous-messages"];
    let bff = Bff::spawn(name, &world.redis.url(), &[&PEOPLE[..], &own, &allow].concat());
    bff.until_ready().await;
    bff
}

/// A new session: its token, and the id under which the application knows it.
async fn session(bff: &Bff) -> (String, String) {
    let answer = reqwest::Client::new().post(bff.http("/api/sessions")).send().await.unwrap();
    let opened: Value = answer.json().await.unwrap();
    let text = |name: &str| opened[name].as_str().unwrap().to_owned();
    (text("session"), text("id"))
}

async fn in_session(bff: &Bff, session: &str) -> Reader {
    Reader::connect(&format!("{}?session={session}", bff.ws())).await
}

fn message(id: &str) -> String {
    json!({"type": "message", "id": id, "message": id}).to_string()
}

async fn refusal(reader: &Reader, code: &str) {
    reader.until(code, |record: &Record| record.errors.iter().any(|(one, _)| one == code)).await;
}

/// The outbox holds nothing: all that was sent is known to have arrived, or is buried.
async fn settled(world: &World) {
    let is_empty = async || world.redis.cli(&["EXISTS", "{Notification-List}:outbox:messages"]) == "0";
    eventually("an empty outbox", DEADLINE, is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_arrives_signed_with_its_bytes_and_its_sender() {
    let world = World::new();
    let application = Application::start(|_, _| Answer::Status(204)).await;
    let bff = replica(&world, "bff-1", &application.url()).await;
    let (token_of_session, id) = session(&bff).await;
    let url = format!("{}?session={token_of_session}&token={}", bff.ws(), token("ann"));
    let reader = Reader::connect(&url).await;
    let data = r#"{"rate":1.10,"number":9007199254740993,"none":[]}"#;
    reader.send(&format!(r#"{{"type":"message","id":"m-1","message":"Yes — \"é\"","data":{data}}}"#)).await;
    reader.send(r#"{"type":"message","data":[1]}"#).await;
    let nobody = Reader::connect(&bff.ws()).await;
    nobody.send(r#"{"type":"message","message":"by nobody"}"#).await;
    let posts = application.wait_for(3).await;
    let of = |word: &str| posts.iter().find(|post| post.raw.contains(word)).unwrap();
    let (first, second, third) = (of("m-1"), of("[1]"), of("by nobody"));
    assert!(first.raw.contains(data), "{}", first.raw);
    let connection = reader.record().welcomes[0].connection.clone();
    assert_eq!(
        (&first.body["id"], &first.body["message"], &first.body["session"], &first.body["user"]),
        (&json!("m-1"), &json!("Yes — \"é\""), &json!(id), &json!("ann"))
    );
    assert_eq!(first.body["connection"], json!(connection));
    assert!(first.body["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&second.body["id"], second.body.get("message")), (&json!(second.webhook_id), None));
    assert_eq!((third.body.get("session"), third.body.get("user")), (None, None));
    assert_eq!(third.body["connection"], json!(nobody.record().welcomes[0].connection));
    for post in &posts {
        assert_eq!(post.schemes, ["webhook", "apiauth"], "both signatures are good: {:?}", post.faults);
        assert_eq!(post.content_type, "application/json");
        assert!(!post.raw.contains(&token_of_session), "the token is nobody's but the reader's");
    }
    settled(&world).await;
    assert!(reader.record().errors.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_session_arrive_in_order_and_once_while_some_attempts_fail() {
    let world = World::new();
    // A few of each session fail at first, in every way there is.
    let application = Application::start(|message, attempt| match (message.rsplit('-').next(), attempt) {
        (Some("5"), 1) => Answer::Status(500),
        (Some("11"), 1) => Answer::Status(429),
        (Some("17"), 1) => Answer::Cut,
        (Some("23"), 1) => Answer::Status(302),
        _ => Answer::Status(200),
    })
    .await;
    let mut bffs = Vec::new();
    for n in 1..=3 {
        bffs.push(replica(&world, &format!("bff-{n}"), &application.url()).await);
    }
    let mut readers = Vec::new();
    for n in 0..4 {
        let (session, _) = session(&bffs[0]).await;
        readers.push(in_session(&bffs[n % 3], &session).await);
    }
    for n in 0..30 {
        for (s, reader) in readers.iter().enumerate() {
            reader.send(&message(&format!("s{s}-{n}"))).await;
        }
    }
    let refused = || -> Vec<String> {
        let records = readers.iter().map(Reader::record);
        // A Redis that does not answer for 2 s on a busy machine leaves open whether it has stored a message.
        let errors = records.inspect(|record| {
            assert!(record.errors.iter().all(|(code, _)| code == "unavailable"), "{:?}", record.errors);
        });
        errors.flat_map(|record| record.refused).collect()
    };
    let arrived = |posts: &[Post]| -> Vec<String> {
        posts.iter().filter(|post| post.answered_well).map(|post| post.message().to_owned()).collect()
    };
    let all: Vec<_> = (0..4).flat_map(|s| (0..30).map(move |n| format!("s{s}-{n}"))).collect();
    application
        .until("all that were stored", |posts| {
            let (arrived, refused) = (arrived(posts), refused());
            all.iter().all(|id| arrived.contains(id) || refused.contains(id))
        })
        .await;
    settled(&world).await;
    let posts = application.posts();
    let (arrived, refused) = (arrived(&posts), refused());
    for s in 0..4 {
        let of_session = |id: &&String| id.starts_with(&format!("s{s}-"));
        let expected: Vec<_> = all.iter().filter(of_session).filter(|id| arrived.contains(id)).collect();
        assert_eq!(arrived.iter().filter(of_session).collect::<Vec<_>>(), expected, "session {s}");
    }
    let ids: BTreeSet<_> = posts.iter().map(|post| &post.webhook_id).collect();
    assert_eq!(ids.len(), arrived.len());
    let fail_at_first = |id: &&String| ["5", "11", "17", "23"].contains(&id.rsplit('-').next().unwrap());
    let failed = arrived.iter().filter(fail_at_first).count();
    assert_eq!(posts.len(), ids.len() + failed, "each was tried once more, with the same id: {refused:?}");
    for (n, post) in posts.iter().enumerate() {
        let earlier = posts[..n].iter().find(|earlier| earlier.webhook_id == post.webhook_id);
        assert!(earlier.is_none_or(|earlier| earlier.raw == post.raw), "an attempt repeats the same bytes");
        assert_eq!(post.schemes.len(), 2, "each attempt is signed: {:?}", post.faults);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_gets_the_messages_of_its_outage_once() {
    let world = World::new();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/incoming?from=carillon");
    let bffs = [replica(&world, "bff-1", &url).await, replica(&world, "bff-2", &url).await];
    let ((mine, _), (other, _)) = (session(&bffs[0]).await, session(&bffs[1]).await);
    // The answer of a stored message may be lost with the connection, so readers repeat themselves.
    for bff in [&bffs[0], &bffs[1], &bffs[0]] {
        let reader = in_session(bff, &mine).await;
        for id in ["m-1", "m-2"] {
            reader.send(&message(id)).await;
        }
        reader.send(r#"{"type":"message","message":"x","id":""}"#).await;
        refusal(&reader, "invalid").await;
    }
    let reader = in_session(&bffs[1], &other).await;
    reader.send(&message("m-1")).await;
    let failed = async || {
        let of = async |bff: &Bff| bff.metric("carillon_upstream_attempts_total", "failed").await;
        of(&bffs[0]).await + of(&bffs[1]).await > 1.5
    };
    eventually("two attempts that failed", DEADLINE, failed).await;
    let application = Application::start_at(port, |_, _| Answer::Status(204)).await;
    application.wait_for(3).await;
    settled(&world).await;
    let posts = application.posts();
    let ids: BTreeSet<_> = posts.iter().map(|post| &post.webhook_id).collect();
    assert_eq!((posts.len(), ids.len()), (3, 3));
    let of_mine: Vec<_> = posts.iter().filter(|post| post.message() == "m-2").collect();
    assert_eq!(of_mine.len(), 1);
    assert!(posts.iter().all(|post| post.schemes.len() == 2), "with a query in the path too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_response_delays_its_own_session_only() {
    let world = World::new();
    let application = Application::start(|message, attempt| match (message, attempt) {
        ("slow", 1) => Answer::Never,
        _ => Answer::Status(204),
    })
    .await;
    let bff = replica(&world, "bff-1", &application.url()).await;
    let slow = in_session(&bff, &session(&bff).await.0).await;
    let other = in_session(&bff, &session(&bff).await.0).await;
    for id in ["slow", "behind it"] {
        slow.send(&message(id)).await;
    }
    application.until("the slow one", |posts| !posts.is_empty()).await;
    for n in 0..10 {
        other.send(&message(&format!("n-{n}"))).await;
    }
    application.wait_for(11).await;
    let attempts = async |outcome: &str| bff.metric("carillon_upstream_attempts_total", outcome).await;
    assert!(attempts("failed").await < 0.5, "the slow one is still waited for");
    application.until("all", |posts| posts.iter().any(|post| post.message() == "behind it")).await;
    settled(&world).await;
    assert_eq!(application.messages()[11..], ["slow", "behind it"]);
    assert!(attempts("failed").await > 0.5 && attempts("lost").await < 0.5, "before its lease was over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_sends_the_messages_of_a_killed_one_with_the_same_id() {
    let world = World::new();
    let application = Application::start(|message, attempt| match (message, attempt) {
        ("m-1", 1) => Answer::Never,
        _ => Answer::Status(204),
    })
    .await;
    let mut first = replica(&world, "bff-1", &application.url()).await;
    let reader = in_session(&first, &session(&first).await.0).await;
    for id in ["m-1", "m-2"] {
        reader.send(&message(id)).await;
    }
    application.until("the first attempt", |posts| !posts.is_empty()).await;
    let _second = replica(&world, "bff-2", &application.url()).await;
    first.process.kill();
    let is_empty = async || application.messages().len() >= 3;
    eventually("another attempt, and the next message", TAKEN_OVER, is_empty).await;
    settled(&world).await;
    assert_eq!(application.messages(), ["m-1", "m-1", "m-2"]);
    let posts = application.posts();
    assert_eq!(posts[0].webhook_id, posts[1].webhook_id);
    assert_eq!(
        (&posts[0].raw, posts[0].timestamp < posts[1].timestamp),
        (&posts[1].raw, true),
        "signed anew"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_replica_finishes_running_attempts() {
    let world = World::new();
    let application = Application::start(|_, _| Answer::After(Duration::from_secs(2))).await;
    let mut bff = replica(&world, "bff-1", &application.url()).await;
    let reader = in_session(&bff, &session(&bff).await.0).await;
    reader.send(&message("m-1")).await;
    application.until("the attempt", |posts| !posts.is_empty()).await;
    bff.process.sigterm();
    assert_eq!(bff.process.wait_exit(DEADLINE).await, 0);
    assert_eq!(world.redis.cli(&["EXISTS", "{Notification-List}:outbox:messages"]), "0", "nobody repeats it");
    assert_eq!(application.posts().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_stored_is_refused_with_its_id_and_a_reason() {
    let world = World::alone();
    let away = format!("http://127.0.0.1:{}/", free_port());
    let bff = replica(&world, "bff-1", &away).await;
    let (token, id) = session(&bff).await;
    let reader = in_session(&bff, &token).await;
    let large = json!({"type": "message", "id": "large", "data": "x".repeat(16 * 1024)}).to_string();
    for (words, code) in [
        (r#"{"type":"message","id":"empty"}"#, "invalid"),
        (r#"{"type":"message","id":"","message":"x"}"#, "invalid"),
        (&large, "invalid"),
    ] {
        let before = reader.record().errors.len();
        reader.send(words).await;
        reader.until("a refusal", |record| record.errors.len() > before).await;
        assert_eq!(reader.record().errors.last().unwrap().0, code, "{words}");
    }
    // A hundred of this session wait already, and then ten thousand of all.
    let line = format!("{{Notification-List}}:outbox:session:{id}");
    let fill = "for n = 1, 100 do redis.call('RPUSH', KEYS[1], n) end";
    world.redis.run(&["EVAL", fill, "1", &line]);
    reader.send(&message("m")).await;
    refusal(&reader, "upstream_full").await;
    let other = in_session(&bff, &session(&bff).await.0).await;
    let fill = "for n = 1, 10000 do redis.call('HSET', KEYS[1], n, 'x') end";
    world.redis.run(&["EVAL", fill, "1", "{Notification-List}:outbox:messages"]);
    other.send(&message("m")).await;
    refusal(&other, "upstream_full").await;
    assert!(other.record().errors[0].1.contains("10000"), "{:?}", other.record().errors);
    world.redis.stop();
    other.send(&message("m")).await;
    refusal(&other, "unavailable").await;

    let world = World::alone();
    let bff = world.bff("bff-1").await;
    let reader = Reader::connect(&bff.ws()).await;
    reader.send(&message("m")).await;
    refusal(&reader, "no_upstream").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_sessions_do_not_raise_limits() {
    let world = World::new();
    let away = format!("http://127.0.0.1:{}/", free_port());
    let bff = replica(&world, "bff-1", &away).await;
    let outbox = |part: &str| format!("{{Notification-List}}:outbox:{part}");
    let fill = "for n = 1, ARGV[1] do
        redis.call('SADD', KEYS[1], n)
        redis.call('HSET', KEYS[2], n, 'x')
    end";
    for (of, most, token, words) in [
        ("of:user:ann", "200", Some(token("ann")), "200 messages of all your sessions wait"),
        ("anonymous", "2000", None, "2000 messages of people who are not signed in wait"),
    ] {
        world.redis.run(&["EVAL", fill, "2", &outbox(of), &outbox("messages"), most]);
        let token = token.map(|token| format!("&token={token}")).unwrap_or_default();
        let reader = Reader::connect(&format!("{}?session=new{token}", bff.ws())).await;
        reader.send(&message("m")).await;
        refusal(&reader, "upstream_full").await;
        assert!(reader.record().errors[0].1.contains(words), "{:?}", reader.record().errors);
    }
    assert!(bff.metric("carillon_messages_refused_total", "upstream_full").await > 1.5);
    let bob = Reader::connect(&format!("{}?session=new&token={}", bff.ws(), token("bob"))).await;
    bob.send(&message("m")).await;
    eventually("it waits", DEADLINE, async || bff.metric("carillon_upstream_accepted_total", "").await > 0.5)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_leave_without_redis_too() {
    let application = Application::start(|message, attempt| match (message, attempt) {
        ("m-2", 1) => Answer::Status(500),
        ("m-3", _) => Answer::Status(410),
        _ => Answer::Status(204),
    })
    .await;
    let secret = |text: &str| Some(text.into());
    let options = SigningOptions { webhook_secret: secret(WEBHOOK), apiauth_secret: secret(LEGACY) };
    let signing = Signing::new(&options).unwrap();
    let upstream = UpstreamOptions { upstream_url: Some(application.url()) };
    let upstream = Upstream::new(&upstream, &signing).unwrap();
    let (broker, _faults, addr) = in_process_with(signing, upstream).await;
    let reader = Reader::connect(&format!("ws://{addr}/ws?session=new")).await;
    for n in 1..=4 {
        reader.send(&message(&format!("m-{n}"))).await;
    }
    application.wait_for(5).await;
    assert_eq!(application.messages(), ["m-1", "m-2", "m-2", "m-3", "m-4"]);
    let dead = broker.dead(DeadList::Outbox).await.unwrap();
    assert_eq!(dead.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>(), ["undeliverable"]);
}
