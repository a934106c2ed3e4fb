//! The last release and this one, side by side on one Redis, as in a fleet that is upgraded replica by replica.

use std::net::Ipv4Addr;
use std::path::Path;

use carillon_harness::{Reader, ReaderOptions, free_port};

use crate::world::{Bff, World, entry};

/// Where scripts/test-upgrade puts the program of the last release.
pub(crate) const LAST_RELEASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/upgrade/bff");
/// Entries that are pushed while one of the two replicas stands still.
const ENTRIES: usize = 30;

/// A replica of each release: the last one first.
async fn fleet(world: &World) -> [Bff; 2] {
    assert!(Path::new(LAST_RELEASE).exists(), "run scripts/test-upgrade, which builds the last release");
    let listen = (Ipv4Addr::LOCALHOST, free_port()).into();
    let last = Bff::spawn_program(LAST_RELEASE, "last", listen, &world.redis.url(), &[]);
    let this = Bff::spawn("this", &world.redis.url(), &[]);
    last.until_ready().await;
    this.until_ready().await;
    [last, this]
}

/// What one of two replicas claims while the other stands still; both readers receive all of it.
async fn claimed_by_one(world: &World, claimer: &Bff, other: &Bff, readers: [&Reader; 2], ids: &[String]) {
    let before = readers.map(Reader::count);
    other.process.signal("STOP");
    world.push(ids.iter().map(entry)).await;
    let at_claimer = usize::from(claimer.name == "this");
    readers[at_claimer].wait_for(before[at_claimer] + ids.len()).await;
    other.process.signal("CONT");
    for (reader, before) in readers.iter().zip(before) {
        let received = reader.wait_for(before + ids.len()).await;
        let new = &received[before..];
        assert_eq!(new.iter().map(|one| &one.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
        assert!(new.iter().all(|one| one.claimed_by == claimer.name), "{new:?}");
    }
}

fn ids(of: &str) -> Vec<String> {
    (0..ENTRIES).map(|n| format!("{of}-{n}")).collect()
}

fn assert_nothing_was_missed(readers: &[&Reader]) {
    for reader in readers {
        let record = reader.record();
        assert_eq!((record.repeated, &record.gaps, &record.unreadable), (0, &vec![], &vec![]), "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the program of the last release: run scripts/test-upgrade"]
async fn entries_claimed_by_either_release_reach_the_readers_of_both() {
    // In database 0: the last release does not name a database in its channels.
    let world = World::alone();
    let [last, this] = fleet(&world).await;
    let (old, new) = (Reader::connect(&last.ws()).await, Reader::connect(&this.ws()).await);
    for turn in 0..3 {
        claimed_by_one(&world, &last, &this, [&old, &new], &ids(&format!("last-{turn}"))).await;
        claimed_by_one(&world, &this, &last, [&old, &new], &ids(&format!("this-{turn}"))).await;
    }
    assert_nothing_was_missed(&[&old, &new]);
    assert_eq!(old.record().ids(), new.record().ids());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the program of the last release: run scripts/test-upgrade"]
async fn a_reader_resumes_without_a_gap_from_either_release_at_the_other() {
    // In database 0: the last release does not name a database in its channels.
    let world = World::alone();
    let [mut last, mut this] = fleet(&world).await;
    for _ in 0..2 {
        // Connected to the one, and then to the other, which is all that is left.
        let urls = [last.ws(), this.ws()];
        let upgraded = Reader::connect_with(ReaderOptions::new(&[&urls[0], &urls[1]])).await;
        let downgraded = Reader::connect_with(ReaderOptions::new(&[&urls[1], &urls[0]])).await;
        let (down, up) = (ids(&format!("a-{}", fastrand::u64(..))), ids(&format!("b-{}", fastrand::u64(..))));
        world.push(down.iter().map(entry)).await;
        downgraded.wait_for(ENTRIES).await;
        upgraded.wait_for(ENTRIES).await;

        last.process.kill();
        world.push(up.iter().map(entry)).await;
        upgraded.wait_for(2 * ENTRIES).await;
        downgraded.wait_for(2 * ENTRIES).await;
        assert_eq!(upgraded.record().live_on(), Some("this"));
        last = Bff::spawn_program(LAST_RELEASE, "last", last.listen(), &world.redis.url(), &[]);
        last.until_ready().await;

        this.process.kill();
        let back = ids(&format!("c-{}", fastrand::u64(..)));
        world.push(back.iter().map(entry)).await;
        downgraded.wait_for(3 * ENTRIES).await;
        upgraded.wait_for(3 * ENTRIES).await;
        assert_eq!(downgraded.record().live_on(), Some("last"));
        let expected: Vec<_> = [down, up, back].concat();
        for reader in [&upgraded, &downgraded] {
            assert_eq!(reader.record().ids(), expected);
        }
        assert_nothing_was_missed(&[&upgraded, &downgraded]);
        this = Bff::spawn_at("this", this.listen(), &world.redis.url(), &[]);
        this.until_ready().await;
    }
}
