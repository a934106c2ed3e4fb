use carillon_harness::{Proxy, Reader, RedisServer, eventually};
use carillon_protocol::GapReason;

use crate::world::{Bff, DEADLINE, World, entry};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_stay_open_during_an_outage_and_lost_data_is_a_gap() {
    let world = World::alone();
    let mut bff = world.bff("bff-1").await;
    let reader = Reader::connect(&bff.ws()).await;
    world.push([entry("before")]).await;
    reader.wait_for(1).await;
    for round in 0..3 {
        world.redis.stop();
        bff.until_not_ready().await;
        assert!(bff.admin("/ready").await.1.contains("fan-out"));
        assert_eq!(bff.admin("/live").await.0, 200);
        world.redis.start_again_empty();
        bff.until_ready().await;
        world.push([entry(format!("after {round}"))]).await;
        let received = reader.wait_for(round + 2).await;
        assert_eq!(received.last().unwrap().id, format!("after {round}"));
    }
    let record = reader.record();
    assert_eq!((record.closes.len(), record.welcomes.len()), (0, 1), "one connection through it all");
    assert_eq!(record.gaps, vec![(GapReason::Epoch, None); 3]);
    assert!(bff.process.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_data_loses_nothing() {
    let redis = RedisServer::start_durable();
    let bff = Bff::spawn("bff-1", &redis.url(), &[]);
    bff.until_ready().await;
    let reader = Reader::connect(&bff.ws()).await;
    redis.run(&["LPUSH", "Notification-List", "before"]);
    reader.wait_for(1).await;
    redis.stop();
    bff.until_not_ready().await;
    redis.start_again();
    redis.run(&["LPUSH", "Notification-List", "after"]);
    let bodies: Vec<_> = reader.wait_for(2).await.into_iter().map(|one| one.body).collect();
    assert_eq!(bodies, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_lose_nothing() {
    let world = World::alone();
    let bffs = world.bffs(2).await;
    let reader = Reader::connect(&bffs[0].ws()).await;
    for n in 0..20 {
        world.redis.run(&["CLIENT", "KILL", "TYPE", ["pubsub", "normal"][n % 2]]);
        eventually("a push", DEADLINE, async || world.broker.push(&[entry(n).into_bytes()]).await.is_ok())
            .await;
    }
    let received = reader.wait_for(20).await;
    assert_eq!(
        received.iter().map(|one| one.id.clone()).collect::<Vec<_>>(),
        (0..20).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(reader.record().gaps, []);
    assert!(bffs[0].metric("carillon_fanout_lost_total", "").await > 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_before_redis_is_noticed_and_loses_nothing() {
    let world = World::alone();
    let proxy = Proxy::start(world.redis.addr()).await;
    let bff = Bff::spawn("bff-1", &format!("redis://{}", proxy.addr()), &[]);
    let other = world.bff("bff-2").await;
    bff.until_ready().await;
    let reader = Reader::connect(&bff.ws()).await;
    let elsewhere = Reader::connect(&other.ws()).await;
    for round in 0..2 {
        if round == 0 {
            proxy.black_hole_current()
        } else {
            proxy.black_hole()
        }
        world.push([entry(format!("dark {round}"))]).await;
        elsewhere.wait_for(round * 2 + 1).await;
        if round == 1 {
            bff.until_not_ready().await;
            proxy.pass();
        }
        reader.wait_for(round * 2 + 1).await;
        bff.until_ready().await;
        world.push([entry(format!("light {round}"))]).await;
        reader.wait_for(round * 2 + 2).await;
    }
    let ids: Vec<_> = reader.received().into_iter().map(|one| one.id).collect();
    assert_eq!(ids, ["dark 0", "light 0", "dark 1", "light 1"]);
    assert_eq!(reader.record().closes, [], "the socket stayed up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_starts_before_redis_waits_for_it() {
    let redis = RedisServer::start();
    redis.stop();
    let mut bff = Bff::spawn("bff-1", &redis.url(), &[]);
    eventually("it answers", DEADLINE, async || bff.admin("/live").await.0 == 200).await;
    assert_eq!(bff.admin("/ready").await.0, 503);
    redis.start_again();
    bff.until_ready().await;
    assert!(bff.process.is_running());
}
