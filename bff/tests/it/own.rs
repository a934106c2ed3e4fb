use carillon_harness::Reader;
use carillon_protocol::Resume;

use crate::world::{Bff, DEADLINE, World, entry};

#[tokio::test]
async fn in_own_mode_only_the_claimer_s_readers_get_a_notification() {
    let world = World::new();
    let bffs: Vec<_> =
        (1..=3).map(|n| Bff::spawn(&format!("bff-{n}"), &world.redis.url(), &["--fanout", "own"])).collect();
    let mut readers = vec![];
    for bff in &bffs {
        bff.until_ready().await;
        readers.push(Reader::connect(&bff.ws()).await);
    }
    let all = async || readers.iter().map(Reader::count).sum::<usize>();
    let mut pushed = 0;
    // As long as it takes for at least two of them to have won some.
    while readers.iter().filter(|reader| reader.count() > 0).count() < 2 || pushed < 200 {
        world.push((pushed..pushed + 10).map(entry)).await;
        pushed += 10;
        carillon_harness::eventually("each is seen by one", DEADLINE, async || all().await == pushed).await;
    }
    for (reader, bff) in readers.iter().zip(&bffs) {
        assert!(reader.received().iter().all(|one| one.claimed_by == bff.name));
    }
    assert!(world.redis.cli(&["KEYS", "*history*"]).trim().is_empty());
    let late =
        Reader::connect(&format!("{}?since={}", bffs[0].ws(), world.broker.tail().await.unwrap())).await;
    assert_eq!(late.record().welcomes[0].resume, Resume::None, "live only, without resume");
}

#[tokio::test]
async fn a_replica_with_another_fan_out_mode_ends_with_the_reason() {
    let world = World::new();
    let all = world.bff("bff-1").await;
    let mut own = Bff::spawn("bff-2", &world.redis.url(), &["--fanout", "own"]);
    assert_eq!(own.process.wait_exit(DEADLINE).await, 1);
    let last = own.process.stderr().pop().unwrap();
    assert!(last.contains("replicas with FANOUT=all run on this Redis"), "{last}");
    let reader = Reader::connect(&all.ws()).await;
    world.push((0..20).map(entry)).await;
    reader.wait_for(20).await;
}
