//! Messages between people: through several replicas, to all devices, and with their status.

use carillon_harness::{Proxy, Reader, ReaderOptions, Record, eventually};
use carillon_protocol::received::{ReadPosition, StatusChange};
use carillon_protocol::{ServerMessage, Status};
use serde_json::{Value, json};

use crate::people::{KEY, PEOPLE, people, signed_in, token};
use crate::world::{Bff, DEADLINE, World};

fn send(id: &str, to: &str) -> String {
    json!({"type": "send", "notification": {"id": id, "to": {"user": to}, "body": "hello"}}).to_string()
}

fn ack(id: &str) -> String {
    json!({"type": "ack", "ids": [id]}).to_string()
}

fn read(id: &str) -> String {
    json!({"type": "read", "ids": [id]}).to_string()
}

/// The statuses of messages that a reader received, in order.
fn statuses(record: &Record, id: &str) -> Vec<Status> {
    let of = |message: &ServerMessage| match message {
        ServerMessage::Status(StatusChange { id: about, status, .. }) if about == id => Some(*status),
        _ => None,
    };
    record.messages.iter().filter_map(of).collect()
}

async fn until(reader: &Reader, id: &str, status: Status) {
    reader.until(status.as_str(), |record| statuses(record, id).contains(&status)).await;
}

/// Status and body of a GET by a user.
async fn get(bff: &Bff, path: &str, user: &str) -> (u16, Value) {
    let answer = reqwest::Client::new().get(bff.http(path)).bearer_auth(token(user)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn post(bff: &Bff, user: &str, notification: &Value) -> (u16, Value) {
    let request = reqwest::Client::new().post(bff.http("/api/notifications")).bearer_auth(token(user));
    let answer = request.json(notification).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_every_device_and_its_sender_gets_each_status() {
    let world = World::new();
    let bffs = people(&world, 3).await;
    let ann = Reader::connect(&signed_in(&bffs[0], "ann")).await;
    let phone = Reader::connect(&signed_in(&bffs[2], "ann")).await;
    let here = Reader::connect(&signed_in(&bffs[1], "ben")).await;
    let there = Reader::connect(&signed_in(&bffs[2], "ben")).await;
    ann.send(&send("m", "ben")).await;
    for device in [&here, &there] {
        assert_eq!(device.wait_for(1).await[0].id, "m");
    }
    until(&ann, "m", Status::Sent).await;
    here.send(&ack("m")).await;
    until(&ann, "m", Status::Delivered).await;
    there.send(&read("m")).await;
    until(&ann, "m", Status::Read).await;
    // Late and repeated acknowledgements change nothing.
    there.send(&ack("m")).await;
    here.send(&read("m")).await;
    phone.until("read on the other device", |record| statuses(record, "m").contains(&Status::Read)).await;
    let all = [Status::None, Status::Sent, Status::Delivered, Status::Read];
    assert_eq!(statuses(&ann.record(), "m"), all);
    assert_eq!(statuses(&phone.record(), "m"), all[1..], "the other device did not send it");
    assert_eq!(statuses(&here.record(), "m"), []);
    let (status, body) = get(&bffs[1], "/api/notifications/m", "ann").await;
    assert_eq!(
        (status, body["status"].as_str(), body["to"]["user"].as_str()),
        (200, Some("read"), Some("ben"))
    );
    assert_eq!(body["at"].as_object().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offline_user_gets_messages_and_statuses_later() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let ben = Reader::connect(&signed_in(&bffs[1], "ben")).await;
    let ben_since = ben.record().welcomes[0].cursor.clone();
    drop(ben);
    let ann = Reader::connect(&signed_in(&bffs[0], "ann")).await;
    ann.send(&send("m", "ben")).await;
    until(&ann, "m", Status::Sent).await;
    let ann_since = ann.record().messages.last().unwrap().cursor().unwrap().to_owned();
    drop(ann);
    // By the history, and from its end by the socket: once, in order.
    let (_, page) = get(&bffs[0], "/api/notifications", "ben").await;
    let ids: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|item| &item["notification"]["id"]).collect();
    assert_eq!(ids, ["m"]);
    let back = |user: &str, since: &str| {
        let options = ReaderOptions {
            since: Some(since.to_owned()),
            ..ReaderOptions::new(&[&signed_in(&bffs[0], user)])
        };
        Reader::connect_with(options)
    };
    let after = back("ben", page["next"].as_str().unwrap()).await;
    let ben = back("ben", &ben_since).await;
    assert_eq!(ben.wait_for(1).await[0].id, "m");
    ben.send(&ack("m")).await;
    let ann = back("ann", &ann_since).await;
    until(&ann, "m", Status::Delivered).await;
    assert_eq!(after.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_sender_and_addressee_see_a_message() {
    let world = World::new();
    let bffs = people(&world, 1).await;
    let bff = &bffs[0];
    let (ann, cem) =
        (Reader::connect(&signed_in(bff, "ann")).await, Reader::connect(&signed_in(bff, "cem")).await);
    let nobody = Reader::connect(&bff.ws()).await;
    ann.send(&send("m", "ben")).await;
    until(&ann, "m", Status::Sent).await;
    for words in [
        ack("m"),
        read("m"),
        json!({"type": "ack", "ids": [{"from": "ann", "id": "m"}]}).to_string(),
        json!({"type": "read", "ids": [{"from": "ann", "id": "m"}]}).to_string(),
        // The same id of another sender is another message; of the same one it is taken.
        send("m", "dan"),
        send("m", "eve"),
        send("forged", "ben").replace("\"body\"", "\"from\":\"ann\",\"body\""),
    ] {
        cem.send(&words).await;
    }
    cem.send(&json!({"type": "send", "notification": {"to": {"user": "ben"}, "body": "no id"}}).to_string())
        .await;
    cem.send(&json!({"type": "send", "notification": {"id": "all", "body": "to all"}}).to_string()).await;
    cem.send(
        &json!({"type": "send", "notification": {"id": "t", "to": {"topic": "closed"}, "body": "b"}})
            .to_string(),
    )
    .await;
    cem.until("five refusals", |record| record.errors.len() == 5).await;
    let codes: Vec<_> = cem.record().errors.into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["conflict", "invalid", "invalid", "invalid", "forbidden"]);
    nobody.send(&send("n", "ben")).await;
    nobody.until("a refusal", |record| record.errors.iter().any(|(code, _)| code == "not_signed_in")).await;
    for (user, expected) in [("ann", 200), ("ben", 200), ("cem", 404)] {
        for path in ["/api/notifications/m?from=ann", "/api/notifications/m/trace?from=ann"] {
            assert_eq!(get(bff, path, user).await.0, expected, "{user} {path}");
        }
    }
    let plain = reqwest::get(bff.http("/api/notifications/m")).await.unwrap();
    assert_eq!(plain.status(), 401);
    assert_eq!(get(bff, "/api/notifications/m", "ann").await.1["status"], "sent", "nobody else raised it");
    // Over HTTP the same rules hold, and the id is given.
    let (status, body) = post(bff, "ann", &json!({"to": {"user": "ben"}, "body": "b"})).await;
    assert_eq!((status, body["status"].as_str()), (202, Some("none")));
    assert!(!body["id"].as_str().unwrap().is_empty());
    assert_eq!(post(bff, "ann", &json!({"to": {"user": "ben"}, "from": "ben", "body": "b"})).await.0, 400);
    assert_eq!(post(bff, "ann", &json!({"body": "to all"})).await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_send_is_stored_once_even_when_its_reply_was_lost() {
    let world = World::alone();
    let network = Proxy::start(world.redis.addr()).await;
    let mut far = Bff::spawn("bff-far", &format!("redis://{}", network.addr()), &PEOPLE);
    far.until_ready().await;
    let near = &people(&world, 1).await[0];
    let ben = Reader::connect(&signed_in(near, "ben")).await;
    let notification = json!({"id": "m", "to": {"user": "ben"}, "body": "b"});
    // The script is there, so that the next answer that is lost is that of the message.
    assert_eq!(post(&far, "ann", &json!({"id": "first", "to": {"user": "ben"}, "body": "b"})).await.0, 202);
    network.lose_replies_after(0);
    let (status, _) = post(&far, "ann", &notification).await;
    assert_eq!(status, 503);
    far.process.kill();
    network.pass();
    let (status, body) = post(near, "ann", &notification).await;
    assert_eq!((status, body["id"].as_str()), (202, Some("m")));
    post(near, "ann", &json!({"id": "last", "to": {"user": "ben"}, "body": "b"})).await;
    ben.until("the last one", |record| record.ids().contains(&"last")).await;
    assert_eq!(ben.record().ids(), ["first", "m", "last"]);
    assert_eq!(ben.record().repeated, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_position_reaches_the_other_tab_and_the_next_welcome() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let (one, two) = (signed_in(&bffs[0], "ann"), signed_in(&bffs[1], "ann"));
    let (tab, other) = (Reader::connect(&one).await, Reader::connect(&two).await);
    world.push([crate::world::entry("a")]).await;
    let cursor = tab.wait_for(1).await[0].cursor.clone();
    tab.send(&json!({"type": "read", "cursor": cursor}).to_string()).await;
    let heard = |record: &Record| {
        record.messages.iter().any(
            |message| matches!(message, ServerMessage::Read(ReadPosition { read, .. }) if *read == cursor),
        )
    };
    other.until("the read position", heard).await;
    tab.until("the read position", heard).await;
    let next = Reader::connect(&two).await;
    assert_eq!(next.record().welcomes[0].read.as_deref(), Some(cursor.as_str()));
    let (_, page) = get(&bffs[0], "/api/notifications", "ann").await;
    assert_eq!(page["read"], cursor);
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "a read position is no notification");
    tab.send(r#"{"type":"read","cursor":"nonsense"}"#).await;
    tab.until("a refusal", |record| record.errors.iter().any(|(code, _)| code == "invalid")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_shows_where_a_message_waits() {
    let world = World::alone();
    let bffs = people(&world, 2).await;
    let trace = async |id: &str| {
        let url = bffs[0].http(&format!("/api/notifications/{id}/trace?from=ann"));
        let answer = reqwest::Client::new().get(url).bearer_auth(KEY).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let body: Value = answer.json().await.unwrap();
        let steps = body["steps"].as_array().unwrap().iter();
        let steps: Vec<_> = steps.map(|step| step["step"].as_str().unwrap().to_owned()).collect();
        (steps, body["stopped"].as_str().map(str::to_owned))
    };
    let reaches = async |id: &str, steps: &[&str], word: &str| {
        eventually(&format!("{id}: {steps:?}"), DEADLINE, async || trace(id).await.0 == steps).await;
        let (_, stopped) = trace(id).await;
        let stopped = stopped.unwrap_or_default();
        assert!(if word.is_empty() { stopped.is_empty() } else { stopped.contains(word) }, "{id}: {stopped}");
    };
    post(&bffs[0], "ann", &json!({"id": "away", "to": {"user": "ben"}, "body": "b"})).await;
    reaches("away", &["accepted", "claimed", "routed"], "no connection").await;
    let ben = Reader::connect(&signed_in(&bffs[1], "ben")).await;
    post(&bffs[0], "ann", &json!({"id": "shown", "to": {"user": "ben"}, "body": "b"})).await;
    ben.wait_for(1).await;
    reaches("shown", &["accepted", "claimed", "routed", "written"], "not acknowledged").await;
    ben.send(&ack("shown")).await;
    reaches("shown", &["accepted", "claimed", "routed", "written", "acknowledged"], "").await;
    ben.send(&read("shown")).await;
    reaches("shown", &["accepted", "claimed", "routed", "written", "acknowledged", "read"], "").await;
    // No replica can claim: the key of the list has another type.
    world.redis.run(&["ACL", "SETUSER", "default", "-ltrim"]);
    post(&bffs[0], "ann", &json!({"id": "waits", "to": {"user": "ben"}, "body": "b"})).await;
    reaches("waits", &["accepted"], "no replica has claimed").await;
}
