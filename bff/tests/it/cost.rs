//! What a fleet costs Redis, of the last release and of this one, by `scripts/measure`. It is printed and never asserted.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use carillon_broker::{FanOut, MessageRef, NewMessage};
use carillon_harness::{DialOptions, Reader, RedisServer, Socket, eventually, free_port};
use carillon_protocol::{Audience, Status};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::people::{PEOPLE, signed_in};
use crate::upgrade::LAST_RELEASE;
use crate::world::{Bff, DEADLINE, World, entry, until_claimed};

const MESSAGES: u32 = 400;
/// Between two messages.
const PAUSE: Duration = Duration::from_millis(5);
const SIGNED_IN: usize = 200;
const READERS: usize = 4_000;
/// One broadcast a second for a day.
const DAY: usize = 86_400;
/// Pages that the viewer of the last release asked for before it turned to its socket.
const PAGES_MAX: usize = 20;

/// The programs that are there, each by what it is called here.
fn releases() -> Vec<(&'static str, &'static str)> {
    let mut releases = vec![("this release", env!("CARGO_BIN_EXE_bff"))];
    if Path::new(LAST_RELEASE).exists() {
        releases.insert(0, ("the last release", LAST_RELEASE));
    } else {
        println!("the last release is not there: run scripts/test-upgrade first");
    }
    releases
}

async fn fleet(world: &World, program: &str, count: usize, options: &[&str]) -> Vec<Bff> {
    let spawn = |n| {
        let listen = (Ipv4Addr::LOCALHOST, free_port()).into();
        Bff::spawn_program(program, &format!("bff-{n}"), listen, &world.redis.url(), options)
    };
    let bffs: Vec<_> = (1..=count).map(spawn).collect();
    for bff in &bffs {
        bff.until_ready().await;
    }
    bffs
}

/// How often each command was called so far.
fn calls(redis: &RedisServer) -> BTreeMap<String, u64> {
    let text = redis.cli(&["INFO", "commandstats"]);
    let lines = text.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
    lines
        .map(|(name, figures)| (name.to_owned(), figures.split(',').next().unwrap().parse().unwrap()))
        .collect()
}

/// How many scripts ran, and how many looks at the length of the list there were, since `before`.
fn since(redis: &RedisServer, before: &BTreeMap<String, u64>) -> (u64, u64) {
    let now = calls(redis);
    let more = |name: &str| {
        now.get(name).copied().unwrap_or_default() - before.get(name).copied().unwrap_or_default()
    };
    (more("evalsha") + more("eval"), more("llen"))
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn each(all: u64, of: u32) -> f64 {
    all as f64 / f64::from(of)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run scripts/measure"]
async fn of_a_message_with_1_4_and_8_replicas() {
    for (release, program) in releases() {
        for replicas in [1, 4, 8] {
            let world = World::alone();
            let bffs = fleet(&world, program, replicas, &[]).await;
            let reader = Reader::connect(&bffs[0].ws()).await;
            let before = calls(&world.redis);
            for n in 0..MESSAGES {
                world.push([entry(n)]).await;
                tokio::time::sleep(PAUSE).await;
            }
            reader.wait_for(MESSAGES as usize).await;
            let (scripts, looks) = since(&world.redis, &before);
            println!(
                "{release}, {replicas} replicas: {:.2} scripts and {:.2} LLEN a message",
                each(scripts, MESSAGES),
                each(looks, MESSAGES)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run scripts/measure"]
async fn of_a_broadcast_that_200_signed_in_readers_acknowledge() {
    for (release, program) in releases() {
        let world = World::alone();
        let bff = &fleet(&world, program, 1, &PEOPLE).await[0];
        let open = async |n| Socket::open(&signed_in(bff, &format!("u-{n}")), &DialOptions::default()).await;
        let mut sockets: Vec<_> =
            join_all((0..SIGNED_IN).map(open)).await.into_iter().map(Result::unwrap).collect();
        for socket in &mut sockets {
            socket.text().await;
        }
        let before = calls(&world.redis);
        world.push([json!({ "id": "b", "body": "b", "from": "ann" }).to_string()]).await;
        for socket in &mut sockets {
            while !socket.text().await.contains(r#""notification""#) {}
            socket.send(r#"{"type":"ack","ids":["b"]}"#).await;
            socket.send(r#"{"type":"ping"}"#).await;
        }
        for socket in &mut sockets {
            while !socket.text().await.contains("heartbeat") {}
        }
        let (scripts, _) = since(&world.redis, &before);
        println!(
            "{release}: {scripts} scripts for one broadcast that {SIGNED_IN} signed-in readers acknowledge"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run scripts/measure"]
async fn of_a_cut_subscription_with_4000_readers() {
    for (release, program) in releases() {
        let world = World::alone();
        let bff = &fleet(&world, program, 1, &["--readers-per-address-max", "5000"]).await[0];
        let subscriptions = world.redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        // Another replica claims what is published while this one is not connected.
        let _other = fleet(&world, program, 1, &["--replica", "other"]).await;
        let mut sockets = vec![];
        while sockets.len() < READERS {
            let open = async |_| Socket::open(&bff.ws(), &DialOptions::default()).await.unwrap();
            sockets.extend(join_all((0..50).map(open)).await);
        }
        for socket in &mut sockets {
            socket.text().await;
        }
        let before = calls(&world.redis);
        for line in subscriptions.lines().filter(|line| !line.is_empty()) {
            let id = line.split(' ').next().unwrap().strip_prefix("id=").unwrap();
            world.redis.run(&["CLIENT", "KILL", "ID", id]);
        }
        world.push([entry("missed")]).await;
        for socket in &mut sockets {
            while !socket.text().await.contains(r#""missed""#) {}
        }
        let (scripts, _) = since(&world.redis, &before);
        println!("{release}: {scripts} scripts until {READERS} readers had what was published during a cut");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run scripts/measure"]
async fn of_a_page_load_after_a_day_of_one_broadcast_a_second() {
    for (release, program) in releases() {
        let world = World::alone();
        let bff = &fleet(&world, program, 1, &PEOPLE).await[0];
        let of_a_second = |n: usize| {
            json!({ "id": n.to_string(), "title": format!("Notification {n}"), "body": "Notification at 2026-11-27T21:10:02.916Z" })
                .to_string()
        };
        for start in (0..DAY).step_by(1_000) {
            world.push((start..DAY.min(start + 1_000)).map(of_a_second)).await;
            eventually("room in the list", DEADLINE, async || world.broker.waiting().await.unwrap() < 5_000)
                .await;
        }
        until_claimed(&world.broker).await;
        let before = calls(&world.redis);
        let mut bytes = 0;
        let mut get = async |query: &str| -> Value {
            let text = reqwest::get(bff.http(&format!("/api/notifications?{query}")))
                .await
                .unwrap()
                .text()
                .await
                .unwrap();
            bytes += text.len();
            serde_json::from_str(&text).unwrap()
        };
        // As the viewer of each release does: from the beginning, or from the newest end.
        let mut cursor;
        if release == "this release" {
            cursor = get("before=now&limit=500").await["next"].as_str().unwrap().to_owned();
        } else {
            cursor = get("limit=1000").await["next"].as_str().unwrap().to_owned();
            for _ in 1..PAGES_MAX {
                cursor =
                    get(&format!("limit=1000&since={cursor}")).await["next"].as_str().unwrap().to_owned();
            }
        }
        let url = format!("{}&since={cursor}", signed_in(bff, "ann"));
        let mut socket = Socket::open(&url, &DialOptions::default()).await.unwrap();
        world.push([entry("the newest")]).await;
        loop {
            let text = socket.text().await;
            bytes += text.len();
            if text.contains("the newest") {
                break;
            }
        }
        let (scripts, _) = since(&world.redis, &before);
        println!(
            "{release}: {} KiB and {scripts} scripts for a page load after {DAY} broadcasts",
            bytes / 1024
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: run scripts/measure"]
async fn of_what_is_kept_of_broadcasts_and_messages() {
    const KEPT: usize = 10_000;
    const PAIRS: usize = 1_000;
    // As the shipped configuration of Redis has it.
    let world = World::over(RedisServer::start_with(&["--stream-node-max-bytes", "512"]));
    let used = || -> u64 {
        let info = world.redis.cli(&["INFO", "memory"]);
        info.lines()
            .find_map(|line| line.strip_prefix("used_memory_dataset:"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    let claimed = async || {
        while world.broker.claim("bff-1", FanOut::All).await.unwrap().waiting > 0 {}
    };
    let empty = used();
    for start in (0..KEPT).step_by(1_000) {
        let of_a_second = |n: usize| {
            json!({ "id": n.to_string(), "title": format!("Notification {n}"), "body": "Notification at 2026-11-27T21:10:02.916Z" })
                .to_string()
        };
        world.push((start..start + 1_000).map(of_a_second)).await;
        claimed().await;
    }
    let history =
        world.redis.cli(&["MEMORY", "USAGE", "{Notification-List}:history:everyone", "SAMPLES", "0"]);
    println!("{} bytes of Redis a broadcast in history", history.parse::<usize>().unwrap() / KEPT);
    println!("{} bytes of Redis a broadcast, remembered ids and all", (used() - empty) / KEPT as u64);
    let before = used();
    for n in 0..KEPT {
        let (from, to) = (format!("user-{}", n % PAIRS), format!("user-{}", (n + 1) % PAIRS));
        let id = format!("m-{n}");
        let entry =
            json!({ "id": id, "body": "x".repeat(80), "from": from, "to": { "user": to } }).to_string();
        let audience = Audience::User(to.clone());
        let message =
            NewMessage { id: &id, from: &from, to: &audience, entry: entry.as_bytes(), accepted_by: "bff-1" };
        world.broker.send(&message).await.unwrap();
        claimed().await;
        let message = MessageRef { from, id };
        world.broker.advance(&to, &[message], Status::Read, "bff-1").await.unwrap();
    }
    println!("{} bytes of Redis a message of 80 letters that was read", (used() - before) / KEPT as u64);
}
