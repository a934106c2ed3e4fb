use std::collections::BTreeSet;

use carillon_broker::limits::{BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, DEAD_MAX_ENTRIES, DEAD_RAW_MAX_BYTES};
use carillon_broker::{Dead, DeadList, FanOut};
use carillon_protocol::Audience;
use carillon_protocol::limits::ENTRY_MAX_BYTES;

use crate::bench::{Bench, claimed, entry, text, topic};
use crate::on_both_engines;

on_both_engines!(
    the_oldest_comes_first_and_positions_rise,
    racing_claimers_take_each_entry_once,
    a_batch_ends_at_its_entries_and_at_its_bytes,
    the_producer_s_bytes_are_kept,
    a_repeated_id_is_dropped_for_each_sender,
    names_with_line_ends_are_no_other_names,
    unroutable_entries_go_to_the_dead_list_and_stop_nothing,
    the_topic_of_a_presence_has_a_user_s_whole_name,
    the_dead_list_is_capped_and_its_entries_cut,
    in_own_mode_nothing_is_kept_or_published,
    a_lost_reply_loses_no_entry,
);

async fn the_oldest_comes_first_and_positions_rise(bench: Bench) {
    bench.push(&["a", "b"]).await;
    bench.push(&["c"]).await;
    let batch = bench.claim("bff-1").await;
    assert_eq!(claimed(std::slice::from_ref(&batch)), ["a", "b", "c"]);
    assert_eq!((batch.waiting, batch.repeated, batch.taken()), (0, 0, 3));
    bench.push(&["d"]).await;
    let next = bench.claim("bff-2").await;
    let chain: Vec<_> = batch.claimed.iter().chain(&next.claimed).map(|one| one.stored.clone()).collect();
    for pair in chain.windows(2) {
        assert!(pair[0].position < pair[1].position);
        assert_eq!(pair[1].prev, pair[0].position, "all are for everyone, so each names the one before");
    }
    assert_eq!(batch.epoch, next.epoch);
    assert_eq!(bench.tail().await.position, chain[3].position);
}

async fn racing_claimers_take_each_entry_once(bench: Bench) {
    let entries: Vec<_> = (0..1_000).map(|n| format!("entry {n}")).collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (a, b, c, d) = tokio::join!(bench.drain("a"), bench.drain("b"), bench.drain("c"), bench.drain("d"));
    let all: Vec<_> = [a, b, c, d].concat();
    let taken = claimed(&all);
    assert_eq!(taken.len(), 1_000);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>(), entries.iter().collect());
    let history = bench.read(&[Audience::Everyone], &bench.start().await, 100).await;
    assert_eq!(history, entries, "history has them in the order in which they were pushed");
}

async fn a_batch_ends_at_its_entries_and_at_its_bytes(bench: Bench) {
    bench.push(&["x"; BATCH_MAX_ENTRIES + 1]).await;
    let batch = bench.claim("bff").await;
    assert_eq!((batch.claimed.len(), batch.waiting), (BATCH_MAX_ENTRIES, 1));
    bench.drain("bff").await;

    let large = "x".repeat(ENTRY_MAX_BYTES);
    bench.push(&[large.as_str(); 6]).await;
    let batch = bench.claim("bff").await;
    assert_eq!((batch.claimed.len(), batch.waiting), (BATCH_MAX_BYTES / ENTRY_MAX_BYTES, 2));
}

async fn the_producer_s_bytes_are_kept(bench: Bench) {
    let exact =
        r#" {"body":"\u00e9é","data":{"list":[],"big":9007199254740993,"small":1.10},"future":null} "#;
    let lines = "first\nsecond\r\n\u{0}third";
    bench.push(&[exact, lines]).await;
    assert_eq!(claimed(&bench.drain("bff").await), [exact, lines]);
    assert_eq!(bench.read(&[Audience::Everyone], &bench.start().await, 10).await, [exact, lines]);
}

async fn a_repeated_id_is_dropped_for_each_sender(bench: Bench) {
    let from = |sender: &str| format!(r#"{{"id":"a","from":"{sender}","body":"b"}}"#);
    let nobody = r#"{"id":"a","body":"b"}"#;
    bench.push(&[nobody, &from("x"), &from("y"), nobody, &from("x")]).await;
    let batch = bench.claim("bff").await;
    assert_eq!((batch.claimed.len(), batch.repeated), (3, 2));
    bench.push(&[&from("y"), "plain", "plain"]).await;
    let batch = bench.claim("bff").await;
    assert_eq!((batch.claimed.len(), batch.repeated), (2, 1), "what has no id is never repeated");
}

async fn names_with_line_ends_are_no_other_names(bench: Bench) {
    let entries = [
        r#"{"from":"a\nb","id":"c","body":"b"}"#,
        r#"{"from":"a","id":"b\nc","body":"b"}"#,
        r#"{"id":"a\nb\nc","body":"b"}"#,
        r#"{"from":"1","id":":x","body":"b"}"#,
        r#"{"id":"1:x","body":"b"}"#,
    ];
    bench.push(&entries).await;
    let batch = bench.claim("bff").await;
    assert_eq!((batch.claimed.len(), batch.repeated), (entries.len(), 0));
}

async fn unroutable_entries_go_to_the_dead_list_and_stop_nothing(bench: Bench) {
    let name = "x".repeat(129);
    let refused = [
        ("empty", String::new()),
        ("empty", " \r\n\t".to_owned()),
        ("invalid", "{".to_owned()),
        ("invalid", r#"{"body":"b"} x"#.to_owned()),
        ("invalid", "{}".to_owned()),
        ("invalid", r#"{"title":"","body":""}"#.to_owned()),
        ("invalid", r#"{"body":7}"#.to_owned()),
        ("invalid", r#"{"id":7.5,"body":"b"}"#.to_owned()),
        ("invalid", r#"{"id":"","body":"b"}"#.to_owned()),
        ("invalid", format!(r#"{{"id":"{name}","body":"b"}}"#)),
        ("invalid", r#"{"from":[],"body":"b"}"#.to_owned()),
        ("invalid", r#"{"to":"all","body":"b"}"#.to_owned()),
        ("invalid", r#"{"to":["user"],"body":"b"}"#.to_owned()),
        ("invalid", r#"{"to":{},"body":"b"}"#.to_owned()),
        ("invalid", r#"{"to":{"user":"a","topic":"b"},"body":"b"}"#.to_owned()),
        ("invalid", r#"{"to":{"user":9007199254740993},"body":"b"}"#.to_owned()),
        ("invalid", r#"{"to":{"everyone":"x"},"body":"b"}"#.to_owned()),
        ("invalid", format!(r#"{{"to":{{"user":"{name}"}},"body":"b"}}"#)),
        ("invalid", r#"{"to":{"user":"bob:state"},"body":"b"}"#.to_owned()),
        ("too_large", "x".repeat(ENTRY_MAX_BYTES + 1)),
    ];
    let mut entries: Vec<&str> = refused.iter().map(|(_, raw)| raw.as_str()).collect();
    entries.push(r#"{"id":null,"from":null,"to":null,"title":"good","body":null}"#);
    bench.push(&entries).await;
    let batches = bench.drain("bff-7").await;
    assert_eq!(claimed(&batches), entries[refused.len()..]);
    let reasons: Vec<_> =
        batches.iter().flat_map(|batch| &batch.refused).map(|refused| refused.reason.clone()).collect();
    assert_eq!(reasons, refused.iter().map(|(reason, _)| *reason).collect::<Vec<_>>());
    let dead = bench.broker.dead(DeadList::Producers).await.unwrap();
    assert_eq!(dead.iter().map(|dead| dead.reason.as_str()).collect::<Vec<_>>(), reasons);
    for (dead, (_, raw)) in dead.iter().zip(&refused) {
        assert_eq!(text(&dead.raw), raw[..raw.len().min(DEAD_RAW_MAX_BYTES)]);
        assert!(!dead.detail.is_empty() && dead.claimed_by == "bff-7");
    }
}

async fn the_topic_of_a_presence_has_a_user_s_whole_name(bench: Bench) {
    let entries = [("", 128), ("", 129), ("presence:", 128), ("presence:", 129), ("presence:", 0)]
        .map(|(before, bytes)| entry(&format!("{before}{bytes}"), &format!("{before}{}", "x".repeat(bytes))));
    bench.push(&entries.each_ref().map(String::as_str)).await;
    let batch = bench.claim("bff").await;
    let expected = [0, 2, 4].map(|at| entries[at].clone());
    assert_eq!((claimed(std::slice::from_ref(&batch)), batch.refused.len()), (expected.to_vec(), 2));
}

async fn the_dead_list_is_capped_and_its_entries_cut(bench: Bench) {
    bench.push(&vec!["{"; DEAD_MAX_ENTRIES + 10]).await;
    bench.drain("bff").await;
    assert_eq!(bench.broker.dead(DeadList::Producers).await.unwrap().len(), DEAD_MAX_ENTRIES, "by the claim");
    let raw = vec![b'y'; DEAD_RAW_MAX_BYTES * 2];
    bench
        .broker
        .bury(
            &Dead {
                reason: "invalid".into(),
                detail: "d".into(),
                claimed_by: "bff".into(),
                raw,
                ..Dead::default()
            },
            b"",
        )
        .await
        .unwrap();
    let dead = bench.broker.dead(DeadList::Producers).await.unwrap();
    assert_eq!(dead.len(), DEAD_MAX_ENTRIES);
    assert_eq!(dead.last().unwrap().raw, vec![b'y'; DEAD_RAW_MAX_BYTES]);
    assert_eq!(dead.last().unwrap().size, DEAD_RAW_MAX_BYTES * 2);
}

async fn in_own_mode_nothing_is_kept_or_published(bench: Bench) {
    bench.push(&[&entry("1", "a")]).await;
    let batch = bench.broker.claim("bff", FanOut::Own).await.unwrap();
    assert_eq!(batch.claimed.len(), 1);
    // Whoever listens is of the other mode, and from then on a claim of this one is refused.
    let ear = bench.listen();
    ear.subscriptions.add(topic("a"));
    ear.until_subscribed(&topic("a")).await;
    bench.push(&[&entry("1", "a"), &entry("2", "a")]).await;
    let batch = bench.claim("bff").await;
    assert_eq!((batch.claimed.len(), batch.repeated), (1, 1), "ids count in either mode");
    ear.until("the second entry", |_| !ear.published().is_empty()).await;
    assert_eq!(ear.published(), [entry("2", "a")]);
    assert_eq!(bench.read(&[topic("a")], &bench.start().await, 10).await, [entry("2", "a")]);
}

async fn a_lost_reply_loses_no_entry(bench: Bench) {
    let entries: Vec<_> = (0..100).map(|n| entry(&n.to_string(), "a")).collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.claim_and_lose_the_reply().await;
    bench.drain("bff").await;
    assert_eq!(bench.read(&[topic("a")], &bench.start().await, 100).await, entries);
}
