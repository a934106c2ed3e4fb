use carillon_broker::Event;
use carillon_broker::limits::READ_MAX_ENTRIES;
use carillon_protocol::{Audience, GapReason, Position};

use crate::bench::{Bench, entry, topic};
use crate::on_both_engines;

on_both_engines!(
    several_audiences_are_read_in_one_order_whatever_the_page,
    large_entries_make_small_pages_and_every_page_gets_on,
    a_full_history_does_not_crowd_out_another,
    every_history_beyond_the_bytes_of_a_read_still_gets_its_turn,
    a_gap_in_a_history_of_which_a_page_gives_nothing_is_told,
    a_read_reaches_the_end_of_the_sequence_when_nothing_is_for_it,
    a_trimmed_history_is_a_gap_and_what_is_left_is_given,
    an_emptied_history_is_a_gap_at_once,
    lost_data_is_a_new_epoch_and_a_gap,
    a_connection_has_no_history,
);

async fn several_audiences_are_read_in_one_order_whatever_the_page(bench: Bench) {
    let start = bench.tail().await;
    let mut entries = vec![];
    for n in 0..400 {
        // Runs of uneven length, so that one history is always far ahead of the others.
        let name = ["a", "a", "a", "b", "a", "c"][(n / 7) % 6];
        entries.push(entry(&n.to_string(), name));
    }
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.drain("bff").await;
    for limit in [1, 3, 50, READ_MAX_ENTRIES] {
        assert_eq!(
            bench.read(&[topic("a"), topic("b"), topic("c")], &start, limit).await,
            entries,
            "pages of {limit}"
        );
    }
    let only: Vec<_> = entries
        .iter()
        .filter(|entry| entry.contains(r#""b""#) && entry.contains(r#"{"topic":"b"}"#))
        .cloned()
        .collect();
    assert_eq!(bench.read(&[topic("b")], &start, 2).await, only);

    let page = bench.page(&[topic("a"), topic("b")], &start, 10).await;
    let again = bench.page(&[topic("a"), topic("b")], &page.reached, 10).await;
    assert!(again.entries[0].stored.position > page.entries.last().unwrap().stored.position);
    assert!(page.gap.is_none() && again.gap.is_none());
}

async fn large_entries_make_small_pages_and_every_page_gets_on(bench: Bench) {
    let entries: Vec<_> = (0..24).map(|n| large(n, &(n % 2).to_string())).collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.drain("bff").await;
    let audiences = [topic("0"), topic("1")];
    let start = bench.start().await;
    let page = bench.page(&audiences, &start, usize::MAX).await;
    assert!(!page.ended && (1..=9).contains(&page.entries.len()), "{}", page.entries.len());
    assert_eq!(bench.read(&audiences, &start, usize::MAX).await, entries);
}

/// An entry of about 60 kB for a topic.
fn large(id: usize, topic: &str) -> String {
    let data = "x".repeat(60_000);
    format!(r#"{{"id":"{id}","body":"b","to":{{"topic":"{topic}"}},"data":"{data}"}}"#)
}

async fn a_full_history_does_not_crowd_out_another(bench: Bench) {
    let start = bench.tail().await;
    let mut entries = vec![];
    for n in 0..30 {
        entries.push(large(n, "loud"));
        entries.extend((0..5).map(|small| entry(&format!("{n}-{small}"), "quiet")));
    }
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.drain("bff").await;
    // With many audiences that have nothing, as the topics of a reader.
    let mut audiences: Vec<_> = (0..62).map(|n| topic(&format!("silent {n}"))).collect();
    audiences.extend([topic("loud"), topic("quiet")]);
    let page = bench.page(&audiences, &start, usize::MAX).await;
    assert_eq!(page.entries.len(), 8 * 6, "8 large ones fit, each with what came between");
    assert_eq!(bench.read(&audiences, &start, usize::MAX).await, entries);
}

async fn every_history_beyond_the_bytes_of_a_read_still_gets_its_turn(bench: Bench) {
    let start = bench.tail().await;
    let entries: Vec<_> = (0..40).map(|n| large(n, &(n % 20).to_string())).collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.drain("bff").await;
    let audiences: Vec<_> = (0..20).map(|n| topic(&n.to_string())).collect();
    let page = bench.page(&audiences, &start, usize::MAX).await;
    assert_eq!((page.entries.len(), page.ended), (8, false));
    assert_eq!(bench.read(&audiences, &start, usize::MAX).await, entries);
}

async fn a_gap_in_a_history_of_which_a_page_gives_nothing_is_told(bench: Bench) {
    let start = bench.tail().await;
    bench.push(&[&entry("1", "a"), &entry("2", "b"), &entry("3", "b"), &entry("4", "a")]).await;
    bench.claim("bff").await;
    bench.trim(&topic("a"), 1);
    let page = bench.page(&[topic("a"), topic("b")], &start, 2).await;
    assert_eq!((page.gap, page.entries.len()), (Some(GapReason::Trimmed), 2));
    let page = bench.page(&[topic("a"), topic("b")], &page.reached, 2).await;
    assert_eq!((page.gap, page.entries.len(), page.ended), (None, 1, true));
}

async fn a_read_reaches_the_end_of_the_sequence_when_nothing_is_for_it(bench: Bench) {
    let start = bench.tail().await;
    bench.push(&["for everyone"]).await;
    bench.claim("bff").await;
    let page = bench.page(&[topic("quiet")], &start, 10).await;
    assert_eq!((page.entries.len(), page.ended, page.gap), (0, true, None));
    assert_eq!(page.reached, bench.tail().await);
}

async fn a_trimmed_history_is_a_gap_and_what_is_left_is_given(bench: Bench) {
    let entries: Vec<_> = (0..10).map(|n| entry(&n.to_string(), "a")).collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.drain("bff").await;
    let start = bench.start().await;
    let all = bench.page(&[topic("a")], &start, 100).await;
    let at =
        |n: usize| carillon_protocol::Cursor { position: all.entries[n].stored.position, ..start.clone() };
    bench.trim(&topic("a"), 4);
    let page = bench.page(&[topic("a")], &at(3), 100).await;
    assert_eq!((page.gap, page.entries.len()), (Some(GapReason::Trimmed), 4));
    let page = bench.page(&[topic("a")], &at(5), 100).await;
    assert_eq!((page.gap, page.entries.len()), (None, 4), "the entry at the cursor itself may be gone");
}

async fn an_emptied_history_is_a_gap_at_once(bench: Bench) {
    let start = bench.tail().await;
    bench.push(&[&entry("1", "a")]).await;
    bench.claim("bff").await;
    bench.trim(&topic("a"), 0);
    let page = bench.page(&[topic("a")], &start, 10).await;
    assert_eq!((page.gap, page.entries.len()), (Some(GapReason::Trimmed), 0));
    let page = bench.page(&[topic("a")], &page.reached, 10).await;
    assert_eq!(page.gap, None, "it is told once");
    bench.push(&[&entry("2", "a")]).await;
    bench.claim("bff").await;
    assert_eq!(bench.page(&[topic("a")], &page.reached, 10).await.gap, None);
}

async fn lost_data_is_a_new_epoch_and_a_gap(bench: Bench) {
    bench.push(&[&entry("1", "a")]).await;
    bench.claim("bff").await;
    let before = bench.tail().await;
    bench.forget();
    bench.push(&[&entry("2", "a")]).await;
    bench.claim("bff").await;
    let page = bench.page(&[topic("a")], &before, 10).await;
    assert_eq!((page.gap, page.entries.len()), (Some(GapReason::Epoch), 1));
    assert_ne!(page.reached.epoch, before.epoch);
    assert_eq!(bench.page(&[topic("a")], &page.reached, 10).await.gap, None);
}

async fn a_connection_has_no_history(bench: Bench) {
    let run = Audience::Connection("bff-1-x".into());
    let ear = bench.listen();
    ear.subscriptions.add(run.clone());
    ear.until_subscribed(&run).await;
    let start = bench.start().await;
    let to = |name: &str| format!(r#"{{"body":"b","to":{{"connection":"{name}"}}}}"#);
    bench.push(&[&to("bff-1-x-7"), &to("bff-1-y-7"), &to("bff-1-x-8"), &to("-"), &to("bff-1-x")]).await;
    let batch = bench.claim("bff").await;
    assert_eq!(batch.claimed[0].audience, Audience::Connection("bff-1-x-7".into()));
    // A replica listens for all connections of its run at once.
    ear.until("the entries", |_| ear.published().len() == 2).await;
    assert_eq!(ear.published(), [to("bff-1-x-7"), to("bff-1-x-8")]);
    let fanouts = ear.events().into_iter().filter_map(|event| match event {
        Event::Fanout(fanout) => Some(fanout),
        _ => None,
    });
    for fanout in fanouts {
        assert!(fanout.audience == run && fanout.entries.iter().all(|entry| entry.prev == Position::ZERO));
    }
    let page = bench.page(&[Audience::Connection("bff-1-x-7".into()), run], &start, 10).await;
    assert_eq!((page.entries.len(), page.gap), (0, None));
}
