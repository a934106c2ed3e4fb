use carillon_broker::BrokerEvent;
use carillon_broker::limits::READ_MAX_ENTRIES;
use carillon_protocol::{Audience, Cursor, GapReason, Position};

use crate::bench::{Bench, entry, gaps, topic};
use crate::on_both_engines;

on_both_engines!(
    several_audiences_are_read_in_one_order_whatever_the_page,
    large_entries_make_small_pages_that_all_advance,
    a_full_history_does_not_crowd_out_another,
    every_history_beyond_the_bytes_of_a_read_still_gets_its_turn,
    a_gap_is_reported_for_a_history_without_entries_on_the_page,
    a_read_reaches_the_end_of_the_sequence_when_nothing_is_for_it,
    a_trimmed_history_is_a_gap_and_what_is_left_is_given,
    an_emptied_history_is_a_gap_at_once,
    lost_data_is_a_new_epoch_and_a_gap,
    a_connection_has_no_history,
    the_newest_entries_are_read_first_and_then_page_by_page_back,
    an_unreadable_cursor_gets_the_whole_history_and_a_gap,
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
    assert_eq!((gaps(&page), gaps(&again)), (vec![], vec![]));
}

async fn large_entries_make_small_pages_that_all_advance(bench: Bench) {
    let entries: Vec<_> = (0..24).map(|n| large(n, &(n % 2).to_string())).collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.drain("bff").await;
    let audiences = [topic("0"), topic("1")];
    let start = bench.start().await;
    let page = bench.page(&audiences, &start, usize::MAX).await;
    assert!(!page.ended && (1..=9).contains(&page.entries.len()), "{}", page.entries.len());
    assert_eq!(bench.read(&audiences, &start, usize::MAX).await, entries);
}

fn trimmed(name: &str) -> Vec<(GapReason, Option<Audience>)> {
    vec![(GapReason::Trimmed, Some(topic(name)))]
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

async fn a_gap_is_reported_for_a_history_without_entries_on_the_page(bench: Bench) {
    let start = bench.tail().await;
    bench.push(&[&entry("1", "a"), &entry("2", "b"), &entry("3", "b"), &entry("4", "a")]).await;
    bench.claim("bff").await;
    bench.trim(&topic("a"), 1);
    let page = bench.page(&[topic("a"), topic("b")], &start, 2).await;
    assert_eq!((gaps(&page), page.entries.len()), (trimmed("a"), 2));
    let page = bench.page(&[topic("a"), topic("b")], &page.reached, 2).await;
    assert_eq!((gaps(&page), page.entries.len(), page.ended), (vec![], 1, true));
}

async fn a_read_reaches_the_end_of_the_sequence_when_nothing_is_for_it(bench: Bench) {
    let start = bench.tail().await;
    bench.push(&["for everyone"]).await;
    bench.claim("bff").await;
    let page = bench.page(&[topic("quiet")], &start, 10).await;
    assert_eq!((page.entries.len(), page.ended, gaps(&page)), (0, true, vec![]));
    assert_eq!(page.reached, bench.tail().await);
}

async fn a_trimmed_history_is_a_gap_and_what_is_left_is_given(bench: Bench) {
    let entries: Vec<_> = (0..10).map(|n| entry(&n.to_string(), "a")).collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.drain("bff").await;
    let start = bench.start().await;
    let all = bench.page(&[topic("a")], &start, 100).await;
    let at = |n: usize| Cursor { position: all.entries[n].stored.position, ..start.clone() };
    bench.trim(&topic("a"), 4);
    let page = bench.page(&[topic("a")], &at(3), 100).await;
    assert_eq!((gaps(&page), page.entries.len()), (trimmed("a"), 4));
    let page = bench.page(&[topic("a")], &at(5), 100).await;
    assert_eq!((gaps(&page), page.entries.len()), (vec![], 4), "the entry at the cursor itself may be gone");
}

async fn an_emptied_history_is_a_gap_at_once(bench: Bench) {
    let start = bench.tail().await;
    bench.push(&[&entry("1", "a")]).await;
    bench.claim("bff").await;
    bench.trim(&topic("a"), 0);
    let page = bench.page(&[topic("a")], &start, 10).await;
    assert_eq!((gaps(&page), page.entries.len()), (trimmed("a"), 0));
    let page = bench.page(&[topic("a")], &page.reached, 10).await;
    assert_eq!(gaps(&page), [], "it is reported once");
    bench.push(&[&entry("2", "a")]).await;
    bench.claim("bff").await;
    assert_eq!(gaps(&bench.page(&[topic("a")], &page.reached, 10).await), []);
}

async fn lost_data_is_a_new_epoch_and_a_gap(bench: Bench) {
    bench.push(&[&entry("1", "a")]).await;
    bench.claim("bff").await;
    let before = bench.tail().await;
    bench.forget();
    bench.push(&[&entry("2", "a")]).await;
    bench.claim("bff").await;
    let page = bench.page(&[topic("a")], &before, 10).await;
    assert_eq!((gaps(&page), page.entries.len()), (vec![(GapReason::Epoch, None)], 1));
    assert_ne!(page.reached.epoch, before.epoch);
    assert_eq!(gaps(&bench.page(&[topic("a")], &page.reached, 10).await), []);
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
        BrokerEvent::Fanout(fanout) => Some(fanout),
        _ => None,
    });
    for fanout in fanouts {
        assert!(fanout.audience == run && fanout.entries.iter().all(|entry| entry.prev == Position::ZERO));
    }
    let page = bench.page(&[Audience::Connection("bff-1-x-7".into()), run], &start, 10).await;
    assert_eq!((page.entries.len(), gaps(&page)), (0, vec![]));
}

async fn the_newest_entries_are_read_first_and_then_page_by_page_back(bench: Bench) {
    let entries: Vec<_> = (0..10).map(|n| entry(&n.to_string(), ["a", "b"][n % 2])).collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.drain("bff").await;
    bench.push(&["for everyone"]).await;
    bench.claim("bff").await;
    let audiences = [topic("a"), topic("b")];
    let texts = |page: &carillon_broker::History| -> Vec<_> {
        page.entries.iter().map(|recalled| crate::bench::text(&recalled.stored.raw)).collect()
    };
    let back = async |before: Option<&Cursor>, limit| {
        bench.settled(async || bench.broker.history_before(&audiences, before, limit).await).await
    };
    let newest = back(None, 4).await;
    assert_eq!((texts(&newest), newest.ended), (entries[6..].to_vec(), false));
    assert_eq!(newest.from, bench.tail().await, "a reader goes on from here");
    let older = back(Some(&newest.reached), 4).await;
    assert_eq!((texts(&older), older.ended), (entries[2..6].to_vec(), false));
    let oldest = back(Some(&older.reached), 4).await;
    assert_eq!((texts(&oldest), oldest.ended), (entries[..2].to_vec(), true));
    let none = back(Some(&oldest.reached), 4).await;
    assert_eq!((none.entries.len(), none.ended), (0, true));
    // What comes meanwhile is after all of it.
    bench.push(&[&entry("late", "a")]).await;
    bench.claim("bff").await;
    assert_eq!(bench.read(&audiences, &newest.from, 10).await, [entry("late", "a")]);
    assert_eq!(texts(&back(Some(&newest.reached), 4).await), entries[2..6]);
    // A cursor of data that are lost begins no later than the present ones.
    let of_another = Cursor { epoch: "old".into(), position: Position::MAX };
    assert_eq!(back(Some(&of_another), 4).await.entries.len(), 0);
}

async fn an_unreadable_cursor_gets_the_whole_history_and_a_gap(bench: Bench) {
    let entries = [entry("1", "a"), entry("2", "a")];
    bench.push(&entries.each_ref().map(String::as_str)).await;
    bench.claim("bff").await;
    let page = bench.page(&[topic("a")], &Cursor::unreadable(), 10).await;
    assert_eq!((gaps(&page), page.entries.len()), (vec![(GapReason::Unreadable, None)], 2));
    assert_eq!(gaps(&bench.page(&[topic("a")], &page.reached, 10).await), []);
}
