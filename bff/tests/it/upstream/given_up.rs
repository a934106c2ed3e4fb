//! Retries and their limits, notifications of the sender, and the right to send.

use carillon_broker::DeadList;
use carillon_harness::{Reader, ReaderOptions, Record, eventually};
use serde_json::Value;

use super::application::{Answer, Application, WEBHOOK};
use super::{in_session, message, refusal, replica, session, settled};
use crate::people::{PEOPLE, token};
use crate::world::{Bff, DEADLINE, World};

/// The texts of notifications about messages that were given up.
fn undelivered(record: &Record) -> Vec<&str> {
    let told = record.received.iter().filter(|one| one.id.starts_with("undelivered:"));
    told.map(|one| one.body.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_410_is_final_and_notifies_the_sender() {
    let world = World::new();
    let application = Application::start(|message, attempt| match (message, attempt) {
        ("gone", _) => Answer::Status(410),
        ("unauthorized", 1) => Answer::Status(401),
        ("forbidden", 1) => Answer::Status(403),
        ("missing", 1) => Answer::Status(404),
        ("unwanted", 1) => Answer::Status(422),
        _ => Answer::Status(204),
    })
    .await;
    let bff = replica(&world, "bff-1", &application.url()).await;
    let session = session(&bff).await.0;
    let reader = in_session(&bff, &session).await;
    let all = ["gone", "unauthorized", "forbidden", "missing", "unwanted", "last"];
    for id in all {
        reader.send(&message(id)).await;
    }
    application.until("the last", |posts| posts.iter().any(|post| post.message() == "last")).await;
    settled(&world).await;
    let posts = application.posts();
    let arrived: Vec<_> = posts.iter().filter(|post| post.answered_well).map(|post| post.message()).collect();
    assert_eq!(arrived, all[1..], "in their order");
    let count = |message: &str| posts.iter().filter(|post| post.message() == message).count();
    assert_eq!(all.map(count), [1, 2, 2, 2, 2, 1]);
    let dead = world.broker.dead(DeadList::Outbox).await.unwrap();
    let [dead] = dead.as_slice() else { panic!("{dead:?}") };
    assert_eq!((dead.reason.as_str(), dead.claimed_by.as_str()), ("undeliverable", "bff-1"));
    assert_eq!(dead.raw, posts[0].raw.as_bytes(), "it is whole");
    reader.until("what became of it", |record| !undelivered(record).is_empty()).await;
    // A sender that reconnects elsewhere is notified too.
    let elsewhere = replica(&world, "bff-2", &application.url()).await;
    let start = reader.record().welcomes[0].cursor.clone();
    let url = format!("{}?session={session}", elsewhere.ws());
    let back =
        Reader::connect_with(ReaderOptions { since: Some(start), ..ReaderOptions::new(&[&url]) }).await;
    back.until("the same", |record| !undelivered(record).is_empty()).await;
    for record in [reader.record(), back.record()] {
        assert_eq!(
            undelivered(&record),
            ["The application did not accept it: the application answered 410 Gone."]
        );
    }
    assert!(bff.metric("carillon_upstream_undeliverable_total", "").await > 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_given_up_after_a_day_with_one_log_line() {
    let world = World::new();
    let application = Application::start(|_, _| Answer::Status(503)).await;
    let bff = replica(&world, "bff-1", &application.url()).await;
    let (token, id) = session(&bff).await;
    let reader = in_session(&bff, &token).await;
    let all = ["a", "b", "c"];
    for id in all {
        reader.send(&message(id)).await;
    }
    let failed = async || bff.metric("carillon_upstream_attempts_total", "failed").await > 0.5;
    eventually("an attempt that failed", DEADLINE, failed).await;
    let waits = async || world.redis.cli(&["HLEN", "{Notification-List}:outbox:since"]) == "3";
    eventually("all are stored", DEADLINE, waits).await;
    // A day later.
    let pass = "for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do redis.call('HINCRBY', KEYS[1], id, -86400000) end";
    world.redis.run(&["EVAL", pass, "1", "{Notification-List}:outbox:since"]);
    reader.until("what became of them", |record| undelivered(record).len() == 3).await;
    settled(&world).await;
    assert_eq!(
        undelivered(&reader.record()),
        ["The application did not accept it: it could not be reached for a day."; 3]
    );
    assert!(application.posts().iter().all(|post| post.message() == "a"), "the line pauses as one");
    let dead = world.broker.dead(DeadList::Outbox).await.unwrap();
    let raw =
        |raw: &[u8]| serde_json::from_slice::<Value>(raw).unwrap()["message"].as_str().unwrap().to_owned();
    assert_eq!(dead.iter().map(|one| raw(&one.raw)).collect::<Vec<_>>(), all);
    let of_line = |line: &&String| line.contains("WARN") && line.contains(&id);
    let warnings: Vec<_> = bff.process.stderr().into_iter().collect::<Vec<_>>();
    let warnings: Vec<_> = warnings.iter().filter(of_line).collect();
    assert_eq!(warnings.len(), 2, "one when it began to fail, one when it was given up: {warnings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_of_the_application_is_obeyed() {
    let world = World::new();
    let application = Application::start(|_, attempt| match attempt {
        1 => Answer::Later("4"),
        _ => Answer::Status(204),
    })
    .await;
    let bff = replica(&world, "bff-1", &application.url()).await;
    let reader = in_session(&bff, &session(&bff).await.0).await;
    reader.send(&message("m")).await;
    application.wait_for(2).await;
    let posts = application.posts();
    let passed = posts[1].timestamp - posts[0].timestamp;
    assert!(passed >= 3, "{passed} s, in whole ones, where 4 were asked for and the first pause is 1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anonymous_messages_are_refused_unless_allowed() {
    let world = World::new();
    let application = Application::start(|_, _| Answer::Status(204)).await;
    let own = ["--webhook-secret", WEBHOOK, "--upstream-url", &application.url()];
    let bff = Bff::spawn("bff-1", &world.redis.url(), &[&PEOPLE[..], &own].concat());
    bff.until_ready().await;
    // A session does not count as a user.
    let nobody = [Reader::connect(&bff.ws()).await, in_session(&bff, &session(&bff).await.0).await];
    for reader in &nobody {
        reader.send(&message("anonymous")).await;
        refusal(reader, "not_signed_in").await;
        let words = reader.record().errors[0].1.clone();
        assert!(words.contains("--allow-anonymous-messages"), "{words}");
    }
    let ann = Reader::connect(&format!("{}?token={}", bff.ws(), token("ann"))).await;
    ann.send(&message("ann's")).await;
    application.wait_for(1).await;
    assert_eq!(application.messages(), ["ann's"]);
}
