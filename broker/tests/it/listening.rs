use carillon_broker::BrokerEvent;
use carillon_protocol::Audience;

use crate::bench::{Bench, entry, topic};
use crate::on_both_engines;

on_both_engines!(
    subscribed_audiences_arrive_in_the_order_of_the_sequence,
    a_push_only_wakes_the_listeners,
    the_tail_of_a_confirmation_is_no_later_than_events_after_it,
    a_cut_listener_reports_it_and_subscribes_again,
    every_listener_receives_everything,
    what_is_removed_and_added_again_is_confirmed_again,
);

async fn subscribed_audiences_arrive_in_the_order_of_the_sequence(bench: Bench) {
    let ear = bench.listen();
    for name in ["a", "b"] {
        ear.subscriptions.add(topic(name));
    }
    ear.until_subscribed(&topic("a")).await;
    ear.until_subscribed(&topic("b")).await;
    let entries: Vec<_> = ["a", "a", "b", "c", "a", "b"]
        .iter()
        .enumerate()
        .map(|(n, name)| entry(&n.to_string(), name))
        .collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.claim("bff-3").await;
    ear.until("five entries", |_| ear.published().len() == 5).await;
    assert_eq!(ear.published(), [&entries[..3], &entries[4..]].concat());
    let fanouts: Vec<_> = ear
        .events()
        .into_iter()
        .filter_map(|event| if let BrokerEvent::Fanout(fanout) = event { Some(fanout) } else { None })
        .collect();
    assert_eq!(
        fanouts.iter().map(|fanout| fanout.entries.len()).collect::<Vec<_>>(),
        [2, 1, 1, 1],
        "neighbours share a message"
    );
    assert!(fanouts.iter().all(|fanout| fanout.claimed_by == "bff-3"));
    assert_eq!(
        fanouts[2].entries[0].prev, fanouts[0].entries[1].position,
        "each names the one before it in its audience"
    );

    ear.subscriptions.remove(&topic("a"));
    ear.subscriptions.add(topic("c"));
    ear.until_subscribed(&topic("c")).await;
    ear.forget();
    bench.push(&[&entry("6", "a"), &entry("7", "c")]).await;
    bench.claim("bff-3").await;
    ear.until("the last entry", |_| !ear.published().is_empty()).await;
    assert_eq!(ear.published(), [entry("7", "c")]);
}

async fn a_push_only_wakes_the_listeners(bench: Bench) {
    let ear = bench.listen();
    ear.until("the connection", |events| events.contains(&BrokerEvent::Up)).await;
    bench.push(&["a"]).await;
    ear.until("a wake-up", |events| events.contains(&BrokerEvent::Wake)).await;
    assert_eq!(ear.events(), [BrokerEvent::Up, BrokerEvent::Wake]);
}

async fn the_tail_of_a_confirmation_is_no_later_than_events_after_it(bench: Bench) {
    bench.push(&["before"]).await;
    bench.claim("bff").await;
    let ear = bench.listen();
    ear.subscriptions.add(Audience::Everyone);
    ear.until_subscribed(&Audience::Everyone).await;
    let tails: Vec<_> = ear
        .events()
        .into_iter()
        .filter_map(|event| if let BrokerEvent::Subscribed { tail, .. } = event { Some(tail) } else { None })
        .collect();
    assert_eq!(tails, [bench.tail().await]);
    bench.push(&["after"]).await;
    bench.claim("bff").await;
    ear.until("the entry", |_| ear.published() == ["after"]).await;
}

async fn a_cut_listener_reports_it_and_subscribes_again(bench: Bench) {
    let ear = bench.listen();
    ear.subscriptions.add(topic("a"));
    ear.until_subscribed(&topic("a")).await;
    for n in 0..5 {
        ear.forget();
        bench.cut();
        ear.until_subscribed(&topic("a")).await;
        assert!(
            matches!(&ear.events()[..], [BrokerEvent::Down, BrokerEvent::Up, BrokerEvent::Subscribed { .. }]),
            "{:?}",
            ear.events()
        );
        let entry = entry(&n.to_string(), "a");
        bench.push(&[&entry]).await;
        bench.claim("bff").await;
        ear.until("the entry", |_| ear.published() == [entry.as_str()]).await;
    }
}

async fn what_is_removed_and_added_again_is_confirmed_again(bench: Bench) {
    let ear = bench.listen();
    for n in 0..20 {
        ear.forget();
        ear.subscriptions.add(topic("a"));
        ear.until_subscribed(&topic("a")).await;
        // So fast that the listener may see no change at all.
        ear.subscriptions.remove(&topic("a"));
        ear.subscriptions.add(topic("a"));
        let confirmed = |event: &&BrokerEvent| matches!(event, BrokerEvent::Subscribed { .. });
        ear.until("a second confirmation", |events| events.iter().filter(confirmed).count() == 2).await;
        let entry = entry(&n.to_string(), "a");
        bench.push(&[&entry]).await;
        bench.claim("bff").await;
        ear.until("the entry", |_| ear.published() == [entry.as_str()]).await;
    }
}

async fn every_listener_receives_everything(bench: Bench) {
    let ears: Vec<_> = (0..3).map(|_| bench.listen()).collect();
    for ear in &ears {
        ear.subscriptions.add(Audience::Everyone);
        ear.until_subscribed(&Audience::Everyone).await;
    }
    let entries: Vec<_> = (0..500).map(|n| format!("entry {n}")).collect();
    bench.push(&entries.iter().map(String::as_str).collect::<Vec<_>>()).await;
    tokio::join!(bench.drain("a"), bench.drain("b"));
    for ear in &ears {
        ear.until("all entries", |_| ear.published().len() == 500).await;
        assert_eq!(ear.published(), entries, "in the order in which they were pushed, whoever claimed them");
    }
}
