use carillon_broker::{Accepted, BrokerEvent, DeadList, EntryKind, Message, MessageRef, NewMessage};
use carillon_protocol::{Audience, Cursor, Position, Status, format_timestamp};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::on_both_engines;

on_both_engines!(
    a_message_goes_from_none_to_read_and_its_sender_receives_each_step,
    a_status_never_goes_back_and_only_the_addressee_raises_it,
    accepting_again_stores_nothing_and_an_id_is_its_sender_s_own,
    an_id_that_its_sender_used_for_something_else_lately_is_a_conflict,
    a_message_that_was_not_accepted_has_no_status,
    the_trace_names_the_replicas_that_received_and_wrote_it,
    a_read_position_rises_and_reaches_all_devices,
    a_read_position_survives_the_epoch_and_never_goes_back,
    a_sender_has_a_quota_in_bytes_on_all_replicas_together,
    an_undeliverable_message_is_in_the_dead_list_and_the_trace,
);

fn entry(id: &str, from: &str, to: &str) -> String {
    json!({ "id": id, "from": from, "to": { "user": to }, "body": "b" }).to_string()
}

async fn accept(bench: &Bench, id: &str, from: &str, to: &str) -> Accepted {
    let (entry, to) = (entry(id, from, to), Audience::User(to.into()));
    let message = NewMessage { id, from, to: &to, entry: entry.as_bytes(), accepted_by: "bff-1" };
    bench.broker.send(&message).await.unwrap()
}

fn by(from: &str, id: &str) -> MessageRef {
    MessageRef { from: from.to_owned(), id: id.to_owned() }
}

/// A message of ann's.
async fn message(bench: &Bench, id: &str) -> Option<Message> {
    bench.broker.message(&by("ann", id)).await.unwrap()
}

/// What a user's history has of a kind.
async fn history(bench: &Bench, user: &str, kind: EntryKind) -> Vec<Value> {
    let page = bench.page(&[Audience::User(user.into())], &bench.start().await, 100).await;
    let entries = page.entries.iter().filter(|recalled| recalled.stored.kind == kind);
    entries.map(|recalled| serde_json::from_slice(&recalled.stored.raw).unwrap()).collect()
}

async fn statuses(bench: &Bench, user: &str) -> Vec<(String, String)> {
    let word = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    let all = history(bench, user, EntryKind::Status).await;
    all.iter().map(|one| (word(one, "id"), word(one, "status"))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(id, status)| ((*id).to_owned(), (*status).to_owned())).collect()
}

async fn raise(bench: &Bench, user: &str, ids: &[&str], status: Status) -> u64 {
    let messages: Vec<_> = ids.iter().map(|id| by("ann", id)).collect();
    bench.broker.advance(user, &messages, status, "bff-2").await.unwrap()
}

async fn a_message_goes_from_none_to_read_and_its_sender_receives_each_step(bench: Bench) {
    assert_eq!(accept(&bench, "m", "ann", "ben").await, Accepted::Stored);
    let none = message(&bench, "m").await.unwrap();
    assert_eq!((none.status, none.from.as_str(), none.to.as_str()), (Status::None, "ann", "ben"));
    assert_eq!(bench.claim("bff-2").await.claimed.len(), 1);
    assert_eq!(message(&bench, "m").await.unwrap().status, Status::Sent);
    assert_eq!(raise(&bench, "ben", &["m"], Status::Delivered).await, 1);
    assert_eq!(raise(&bench, "ben", &["m"], Status::Read).await, 1);
    let read = message(&bench, "m").await.unwrap();
    assert_eq!(read.status, Status::Read);
    let times: Vec<_> = read.at_ms.values().copied().collect();
    assert_eq!(times.len(), 4);
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(statuses(&bench, "ann").await, pairs(&[("m", "sent"), ("m", "delivered"), ("m", "read")]));
    let entries = &history(&bench, "ann", EntryKind::Status).await[2]["at"];
    assert_eq!(entries.as_str().unwrap(), format_timestamp(read.at_ms[&Status::Read]));
    let received = history(&bench, "ben", EntryKind::Notification).await;
    assert_eq!(received[0]["id"], "m");
    assert_eq!(statuses(&bench, "ben").await, []);
}

async fn a_status_never_goes_back_and_only_the_addressee_raises_it(bench: Bench) {
    accept(&bench, "m", "ann", "ben").await;
    accept(&bench, "n", "ann", "ben").await;
    bench.claim("bff-1").await;
    for stranger in ["ann", "cem"] {
        assert_eq!(raise(&bench, stranger, &["m"], Status::Read).await, 0, "{stranger}");
    }
    // Read without a word before means delivered too.
    assert_eq!(raise(&bench, "ben", &["m", "unknown"], Status::Read).await, 1);
    assert_eq!(raise(&bench, "ben", &["m", "n"], Status::Delivered).await, 1, "the other alone");
    assert_eq!(raise(&bench, "ben", &["m"], Status::Read).await, 0);
    let read = message(&bench, "m").await.unwrap();
    assert_eq!((read.status, read.at_ms.len()), (Status::Read, 4));
    let expected = pairs(&[("m", "sent"), ("n", "sent"), ("m", "read"), ("n", "delivered")]);
    assert_eq!(statuses(&bench, "ann").await, expected);
    // An acknowledgement that overtakes the claim stands.
    accept(&bench, "o", "ann", "ben").await;
    assert_eq!(raise(&bench, "ben", &["o"], Status::Delivered).await, 1);
    bench.claim("bff-1").await;
    assert_eq!(message(&bench, "o").await.unwrap().status, Status::Delivered);
}

async fn accepting_again_stores_nothing_and_an_id_is_its_sender_s_own(bench: Bench) {
    assert_eq!(accept(&bench, "m", "ann", "ben").await, Accepted::Stored);
    assert_eq!(accept(&bench, "m", "ann", "ben").await, Accepted::Repeated(Status::None));
    assert_eq!(accept(&bench, "m", "ann", "cem").await, Accepted::Conflict);
    assert_eq!(accept(&bench, "m", "cem", "ben").await, Accepted::Stored, "ids are their sender's own");
    assert_eq!(bench.claim("bff-1").await.claimed.len(), 2);
    assert_eq!(accept(&bench, "m", "ann", "ben").await, Accepted::Repeated(Status::Sent));
    assert_eq!(bench.claim("bff-1").await.taken(), 0, "nothing was pushed again");
}

async fn an_id_that_its_sender_used_for_something_else_lately_is_a_conflict(bench: Bench) {
    let topic = json!({ "id": "m", "from": "ann", "to": { "topic": "news" }, "body": "b" }).to_string();
    bench.push(&[topic.as_str()]).await;
    bench.claim("bff-1").await;
    assert_eq!(accept(&bench, "m", "ann", "ben").await, Accepted::Conflict, "the claim would drop it");
    assert_eq!(accept(&bench, "m", "cem", "ben").await, Accepted::Stored, "ids are a sender's own");
}

async fn a_message_that_was_not_accepted_has_no_status(bench: Bench) {
    bench.push(&[&entry("m", "ann", "ben")]).await;
    bench.claim("bff-1").await;
    assert_eq!(message(&bench, "m").await, None);
    assert_eq!(raise(&bench, "ben", &["m"], Status::Delivered).await, 0);
    assert_eq!(statuses(&bench, "ann").await, []);
    // Nor does one with the id of another message.
    accept(&bench, "n", "ann", "ben").await;
    bench.push(&[&entry("n", "cem", "ben")]).await;
    bench.claim("bff-1").await;
    assert_eq!(statuses(&bench, "cem").await, []);
    assert_eq!(statuses(&bench, "ann").await, pairs(&[("n", "sent")]));
}

async fn the_trace_names_the_replicas_that_received_and_wrote_it(bench: Bench) {
    accept(&bench, "offline", "ann", "ben").await;
    bench.claim("bff-2").await;
    let ear = bench.listen();
    let ben = Audience::User("ben".into());
    ear.subscriptions.add(ben.clone());
    ear.until_subscribed(&ben).await;
    accept(&bench, "online", "ann", "ben").await;
    bench.claim("bff-3").await;
    for n in 0..10 {
        bench.broker.record_written(&by("ann", "online"), "bff-1", &format!("c-{n}")).await.unwrap();
    }
    bench.broker.record_written(&by("ann", "unknown"), "bff-1", "c").await.unwrap();
    raise(&bench, "ben", &["online"], Status::Delivered).await;
    let offline = message(&bench, "offline").await.unwrap();
    assert_eq!((offline.routed, offline.written), (Some(0), 0));
    assert_eq!(offline.claimed_by.as_deref(), Some("bff-2"));
    let online = message(&bench, "online").await.unwrap();
    assert_eq!((online.routed, online.written, online.writings.len()), (Some(1), 10, 8));
    assert_eq!(
        (online.writings[7].replica.as_str(), online.writings[7].connection.as_str()),
        ("bff-1", "c-7")
    );
    assert_eq!((online.accepted_by.as_str(), online.acknowledged_by.as_deref()), ("bff-1", Some("bff-2")));
    assert_eq!(message(&bench, "unknown").await, None, "a trace makes no message");
}

async fn a_read_position_rises_and_reaches_all_devices(bench: Bench) {
    let ear = bench.listen();
    let ben = Audience::User("ben".into());
    ear.subscriptions.add(ben.clone());
    ear.until_subscribed(&ben).await;
    assert_eq!(bench.broker.read_position("ben").await.unwrap(), None);
    bench.push(&["a", "b", "c"]).await;
    let claimed = bench.claim("bff-1").await;
    let at = |n: usize| Cursor { epoch: claimed.epoch.clone(), position: claimed.claimed[n].stored.position };
    let mark = async |cursor: &Cursor| bench.broker.mark_read("ben", cursor, "bff-1").await.unwrap();
    assert!(mark(&at(1)).await);
    assert!(!mark(&at(1)).await && !mark(&at(0)).await, "never back");
    assert_eq!(bench.broker.read_position("ben").await.unwrap(), Some(at(1)));
    // Nobody has read what is not there yet.
    assert!(mark(&Cursor { position: Position { ms: 9_000_000_000_000, n: 0 }, ..at(2) }).await);
    let known = bench.broker.read_position("ben").await.unwrap().unwrap();
    assert!(known.position >= at(2).position && known.position.ms < 9_000_000_000_000);
    ear.until("two read entries", |events| {
        let of_kind = |event: &BrokerEvent| match event {
            BrokerEvent::Fanout(fanout) => {
                fanout.entries.iter().filter(|entry| entry.kind == EntryKind::Read).count()
            }
            _ => 0,
        };
        events.iter().map(of_kind).sum::<usize>() == 2
    })
    .await;
    let entries = ear.published();
    assert_eq!(serde_json::from_str::<Value>(&entries[0]).unwrap(), json!({ "read": at(1).to_string() }));
    assert_eq!(history(&bench, "ben", EntryKind::Read).await.len(), 2);
}

async fn a_read_position_survives_the_epoch_and_never_goes_back(bench: Bench) {
    bench.push(&["a", "b"]).await;
    let old = bench.claim("bff-1").await;
    let at = |n: usize| Cursor { epoch: old.epoch.clone(), position: old.claimed[n].stored.position };
    assert!(bench.broker.mark_read("ben", &at(1), "bff-1").await.unwrap());
    bench.begin_epoch();
    let known = bench.settled(async || bench.broker.read_position("ben").await).await.unwrap();
    assert_ne!(known.epoch, old.epoch);
    assert_eq!(known.position, at(1).position, "the same place, in the present epoch");
    let mark = async |cursor: &Cursor| bench.broker.mark_read("ben", cursor, "bff-1").await.unwrap();
    assert!(!mark(&at(0)).await, "an earlier one of the old epoch");
    assert!(!mark(&Cursor { position: at(0).position, ..known.clone() }).await, "or of the new");
    bench.push(&["c"]).await;
    let new = bench.claim("bff-1").await;
    assert!(mark(&Cursor { epoch: new.epoch.clone(), position: new.claimed[0].stored.position }).await);
    // One from after the data that the new epoch began with names nothing of it.
    assert!(!mark(&Cursor { epoch: old.epoch.clone(), position: Position::MAX }).await);
}

async fn a_sender_has_a_quota_in_bytes_on_all_replicas_together(bench: Bench) {
    let settings = carillon_broker::Settings { stored_bytes_per_day: 4_096, ..bench.settings() };
    let replicas = [bench.again(settings.clone()), bench.again(settings)];
    let to = Audience::User("ben".into());
    let send = async |replica: usize, from: &str, id: &str| {
        let entry = entry(id, from, "ben");
        let message = NewMessage { id, from, to: &to, entry: entry.as_bytes(), accepted_by: "bff-1" };
        replicas[replica].send(&message).await.unwrap()
    };
    let mut accepted = 0;
    let retry_ms = loop {
        match send(accepted % 2, "ann", &accepted.to_string()).await {
            Accepted::Stored => accepted += 1,
            Accepted::Quota { retry_ms } => break retry_ms,
            other => panic!("{other:?}"),
        }
    };
    assert!((5..8).contains(&accepted), "{accepted} of about 570 bytes each");
    assert!((80_000_000..=86_400_000).contains(&retry_ms), "{retry_ms}");
    assert_eq!(send(0, "cem", "0").await, Accepted::Stored, "each has their own");
    assert_eq!(send(0, "ann", "0").await, Accepted::Repeated(Status::None), "a repeat stores nothing");
    bench.pass_time(86_400_000);
    assert_eq!(send(0, "ann", "next day").await, Accepted::Stored);
}

async fn an_undeliverable_message_is_in_the_dead_list_and_the_trace(bench: Bench) {
    assert_eq!(accept(&bench, "m", "ann", "ben").await, Accepted::Stored);
    bench.spoil(&Audience::User("ben".into()));
    let batch = bench.claim("bff-1").await;
    assert_eq!(batch.refused[0].reason, "no_history");
    let dead = bench.broker.dead(DeadList::People).await.unwrap();
    assert_eq!((dead.len(), dead[0].raw.as_slice()), (1, entry("m", "ann", "ben").as_bytes()));
    assert_eq!(bench.broker.dead(DeadList::Producers).await.unwrap(), []);
    let buried = message(&bench, "m").await.unwrap().buried.unwrap();
    assert!(buried.starts_with("no_history: "), "{buried}");
    bench.mend(&Audience::User("ben".into()));
    assert!(bench.broker.put_back(DeadList::People, &dead[0].id).await.unwrap());
    assert!(!bench.broker.put_back(DeadList::People, &dead[0].id).await.unwrap(), "it is not there any more");
    assert_eq!(bench.claim("bff-1").await.claimed.len(), 1);
    let delivered = message(&bench, "m").await.unwrap();
    assert_eq!((delivered.status, delivered.buried), (Status::Sent, None));
}

/// The script writes dates by itself.
#[tokio::test]
async fn the_script_writes_times_as_the_rest_does() {
    let server = carillon_harness::RedisServer::shared();
    let functions = include_str!("../../src/history/timestamp.lua");
    let script = format!(
        "{functions}\nlocal all = {{}} for i = 1, #ARGV do all[i] = timestamp(tonumber(ARGV[i])) end return table.concat(all, ' ')"
    );
    let mut rng = fastrand::Rng::with_seed(7);
    let leap_days = [0, 951_782_399_999, 951_782_400_000, 1_709_164_800_000, 4_107_542_399_999];
    let times: Vec<u64> = leap_days
        .into_iter()
        .chain(std::iter::repeat_with(|| rng.u64(0..8_000_000_000_000)).take(500))
        .collect();
    let written: Vec<String> = times.iter().map(ToString::to_string).collect();
    let args: Vec<&str> =
        ["EVAL", &script, "0"].into_iter().chain(written.iter().map(String::as_str)).collect();
    let expected: Vec<_> = times.iter().map(|ms| format_timestamp(*ms)).collect();
    assert_eq!(server.cli(&args).trim(), expected.join(" "));
}
