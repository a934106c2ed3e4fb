//! The main line: claimed once, seen by everyone, in one order.

use std::collections::BTreeMap;
use std::time::Duration;

use carillon_harness::{Reader, ReaderOptions, Received};

use crate::world::{Bff, World, entry, in_process, until_claimed};

const BFFS: usize = 5;
const PRODUCERS: usize = 4;
const ENTRIES: usize = 20_000;
/// Entries of one push.
const PUSH: usize = 25;

/// Four producers push 20,000 entries; `midway` is run when half of them are on their way.
async fn race(world: &World, readers: &[Reader], midway: impl AsyncFnOnce()) {
    let producer = async |producer: usize, half: usize| {
        let own = ENTRIES / PRODUCERS;
        for start in (half * own / 2..(half + 1) * own / 2).step_by(PUSH) {
            world.push((start..start + PUSH).map(|n| entry(format!("{producer}-{n}")))).await;
        }
    };
    let half =
        async |half| tokio::join!(producer(0, half), producer(1, half), producer(2, half), producer(3, half));
    Box::pin(half(0)).await;
    midway().await;
    Box::pin(half(1)).await;
    let mut orders = vec![];
    for reader in readers {
        orders.push(reader.wait_for(ENTRIES).await);
    }
    for (order, reader) in orders.iter().zip(readers) {
        assert_eq!(order.len(), ENTRIES, "each once");
        let differs = order.iter().zip(&orders[0]).position(|(one, other)| one.id != other.id);
        assert_eq!(differs, None, "all see the same order");
        let record = reader.record();
        assert!(
            record.unreadable.is_empty() && record.gaps.is_empty(),
            "{:?} {:?}",
            record.unreadable,
            record.gaps
        );
    }
    let mut ids: Vec<_> = orders[0].iter().map(|one| one.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), ENTRIES, "every id");
}

fn wins(order: &[Received]) -> BTreeMap<&str, usize> {
    let mut wins = BTreeMap::new();
    for one in order {
        *wins.entry(one.claimed_by.as_str()).or_default() += 1;
    }
    wins
}

async fn readers(bffs: &[Bff]) -> Vec<Reader> {
    let urls: Vec<_> = bffs.iter().map(Bff::ws).collect();
    let mut readers = vec![];
    for at in 0..urls.len() {
        // Its own replica first, and the others when that fails.
        let order: Vec<_> = urls.iter().cycle().skip(at).take(urls.len()).map(String::as_str).collect();
        readers.push(Reader::connect_with(ReaderOptions::new(&order)).await);
    }
    readers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_of_five_replicas_sees_every_entry_once_in_the_same_order() {
    let world = World::new();
    let bffs = world.bffs(BFFS).await;
    let readers = readers(&bffs).await;
    Box::pin(race(&world, &readers, async || {})).await;
    let order = readers[0].received();
    let wins = wins(&order);
    assert_eq!(wins.len(), BFFS, "everyone won some: {wins:?}");
    assert_eq!(wins.values().sum::<usize>(), ENTRIES);
    let mut claimed = 0.0;
    for bff in &bffs {
        claimed += bff.metric("carillon_entries_claimed_total", "").await;
    }
    assert!((claimed - 20_000.0).abs() < 0.5, "{claimed}");
    for reader in &readers {
        let record = reader.record();
        assert_eq!(
            (record.repeated, record.closes.len()),
            (0, 0),
            "nothing came twice and nobody was closed"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_and_subscriptions_lose_and_repeat_nothing() {
    let world = World::alone();
    let mut bffs = world.bffs(BFFS).await;
    let readers = readers(&bffs).await;
    let (redis, doomed) = (&world.redis, &mut bffs[2]);
    let midway = async || {
        doomed.process.kill();
        redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    };
    Box::pin(race(&world, &readers, midway)).await;
    let order = readers[0].received();
    assert_eq!(wins(&order).values().sum::<usize>(), ENTRIES);
    let moved = readers[2].record();
    assert!(
        moved.welcomes.iter().any(|welcome| welcome.replica != "bff-3"),
        "its reader came back on another one"
    );
}

/// How long it takes until the list is empty, on a clock that only waiting moves: a poll would take up to a second.

#[tokio::test(start_paused = true)]
async fn a_wake_up_or_a_reconnect_empties_the_list() {
    let (broker, faults, _addr) = in_process().await;
    let entries: Vec<_> = (0..1_000).map(|n| entry(n).into_bytes()).collect();
    // In the middle of the pause before the next poll.
    tokio::time::sleep(Duration::from_millis(300)).await;
    broker.push(&entries).await.unwrap();
    assert!(until_claimed(&broker).await < Duration::from_millis(300));
    tokio::time::sleep(Duration::from_millis(300)).await;
    faults.cut_subscribers();
    broker.push(&[b"nobody hears the wake-up".to_vec()]).await.unwrap();
    assert!(until_claimed(&broker).await < Duration::from_millis(300));
}
