//! Presence: sent to readers of `presence:<user>`, and answered on every replica.

use carillon_harness::{DialOptions, Proxy, Reader, ReaderOptions, Record, Socket, eventually};
use carillon_protocol::{Presence, ServerMessage};
use serde_json::{Value, json};

use crate::people::{KEY, PEOPLE, SECRET, signed_in, token, token_with};
use crate::world::{Bff, DEADLINE, World};

async fn replicas(world: &World, count: usize, options: &[&str]) -> Vec<Bff> {
    let args = [&PEOPLE[..], options].concat();
    let bffs: Vec<_> =
        (1..=count).map(|n| Bff::spawn(&format!("bff-{n}"), &world.redis.url(), &args)).collect();
    for bff in &bffs {
        bff.until_ready().await;
    }
    bffs
}

/// The URL of a reader of the presence of these users.
fn watch(bff: &Bff, users: &[&str]) -> String {
    let token = token_with(SECRET, json!({ "user_id": "watcher", "topics": ["presence:*"] }));
    let topics: String = users.iter().map(|user| format!("&topic=presence:{user}")).collect();
    format!("{}?token={token}{topics}", bff.ws())
}

/// Whether users are online, as it was sent, in order.
fn sent(record: &Record) -> Vec<(String, bool)> {
    let of = |message: &ServerMessage| match message {
        ServerMessage::Presence(Presence { user, online, .. }) => Some((user.clone(), *online)),
        _ => None,
    };
    record.messages.iter().filter_map(of).collect()
}

/// Changes of presence, in order: frames that differ from the one before of the same user, who is first offline.
fn changes(record: &Record) -> Vec<(String, bool)> {
    let mut online = std::collections::BTreeMap::new();
    let is_change = |(user, is_online): &(String, bool)| {
        online.insert(user.clone(), *is_online).unwrap_or(false) != *is_online
    };
    sent(record).into_iter().filter(is_change).collect()
}

async fn until_changes(watcher: &Reader, events: &[(&str, bool)]) {
    watcher.until(&format!("{events:?}"), |record| changes(record).len() >= events.len()).await;
    let events: Vec<_> = events.iter().map(|(user, online)| ((*user).to_owned(), *online)).collect();
    assert_eq!(changes(&watcher.record()), events);
}

async fn get(bff: &Bff, path: &str, bearer: Option<&str>) -> (u16, Value) {
    let request = reqwest::Client::new().get(bff.http(&format!("/api/presence{path}")));
    let request = bearer.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn presence(bff: &Bff, user: &str) -> Value {
    let (status, body) = get(bff, &format!("/{user}"), Some(KEY)).await;
    assert_eq!((status, body["user"].as_str()), (200, Some(user)));
    body
}

async fn until_connections(bff: &Bff, user: &str, count: u64) {
    eventually(&format!("{count} connections of {user}"), DEADLINE, async || {
        presence(bff, user).await["connections"] == count
    })
    .await;
}

async fn open(url: &str) -> Socket {
    let mut socket = Socket::open(url, &DialOptions::default()).await.unwrap();
    socket.text().await;
    socket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_sent_and_answered_on_every_replica() {
    let world = World::new();
    let bffs = replicas(&world, 2, &["--presence-grace", "300ms"]).await;
    let url = watch(&bffs[1], &["ann"]);
    let watcher = Reader::connect(&url).await;
    let since = watcher.record().welcomes[0].cursor.clone();
    let (here, there) = (
        Reader::connect(&signed_in(&bffs[0], "ann")).await,
        Reader::connect(&signed_in(&bffs[1], "ann")).await,
    );
    until_changes(&watcher, &[("ann", true)]).await;
    for bff in &bffs {
        until_connections(bff, "ann", 2).await;
        let ann = presence(bff, "ann").await;
        let at = watcher.record().messages.iter().find_map(|message| match message {
            ServerMessage::Presence(Presence { since, online: true, .. }) => since.clone(),
            _ => None,
        });
        assert_eq!(ann, json!({ "user": "ann", "online": true, "connections": 2, "since": at }));
        let (_, both) = get(bff, "?user=zed&user=ann", Some(KEY)).await;
        let zed = json!({ "user": "zed", "online": false, "connections": 0, "since": null });
        assert_eq!(both, json!({ "users": [zed, ann] }));
    }
    drop(here);
    until_connections(&bffs[1], "ann", 1).await;
    assert_eq!(changes(&watcher.record()).len(), 1, "another connection is left");
    drop(there);
    until_changes(&watcher, &[("ann", true), ("ann", false)]).await;
    let gone = json!({ "user": "ann", "online": false, "connections": 0, "since": null });
    assert_eq!(presence(&bffs[0], "ann").await, gone);
    // A reader that connects gets the current presence, and none of the changes before.
    let later = ReaderOptions { since: Some(since), ..ReaderOptions::new(&[&url]) };
    let later = Reader::connect_with(later).await;
    later.until("ann is away", |record| !sent(record).is_empty()).await;
    let _ann = Reader::connect(&signed_in(&bffs[0], "ann")).await;
    until_changes(&later, &[("ann", true)]).await;
    assert_eq!(sent(&later.record()), [("ann".to_owned(), false), ("ann".to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_not_a_leave_even_on_another_replica() {
    let world = World::new();
    let bffs = replicas(&world, 2, &["--presence-grace", "60s"]).await;
    let watcher = Reader::connect(&watch(&bffs[0], &["ann", "ben"])).await;
    let mut page = open(&signed_in(&bffs[0], "ann")).await;
    until_changes(&watcher, &[("ann", true)]).await;
    let since = presence(&bffs[0], "ann").await["since"].clone();
    for refresh in 0..6 {
        if refresh % 3 == 0 {
            page.cut()
        } else {
            page.close().await
        }
        until_connections(&bffs[1], "ann", 0).await;
        assert_eq!(presence(&bffs[1], "ann").await["online"], true);
        page = open(&signed_in(&bffs[refresh % 2], "ann")).await;
        until_connections(&bffs[0], "ann", 1).await;
    }
    assert_eq!(presence(&bffs[0], "ann").await["since"], since);
    // Any frame about ann would have arrived before this.
    let _ben = open(&signed_in(&bffs[1], "ben")).await;
    until_changes(&watcher, &[("ann", true), ("ben", true)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_of_a_killed_replica_leave_when_its_lease_expires() {
    let world = World::new();
    let mut bffs = replicas(&world, 3, &[]).await;
    let users = ["ann", "both", "carl"];
    let watcher = Reader::connect(&watch(&bffs[2], &users)).await;
    let mut sockets = vec![];
    for (user, bff) in [("ann", 0), ("ann", 0), ("both", 0), ("both", 1), ("carl", 1)] {
        sockets.push(open(&signed_in(&bffs[bff], user)).await);
    }
    for (user, count) in [("ann", 2), ("both", 2), ("carl", 1)] {
        until_connections(&bffs[2], user, count).await;
    }
    bffs[0].process.kill();
    watcher.until("ann's leave", |record| changes(record).contains(&("ann".to_owned(), false))).await;
    let mut events = changes(&watcher.record());
    assert_eq!(events.pop(), Some(("ann".to_owned(), false)), "and nothing after it");
    events.sort();
    assert_eq!(events, users.map(|user| (user.to_owned(), true)), "each came once");
    for (user, count) in [("ann", 0), ("both", 1), ("carl", 1)] {
        for bff in &bffs[1..] {
            let found = presence(bff, user).await;
            assert_eq!((&found["connections"], &found["online"]), (&json!(count), &json!(count > 0)));
        }
    }
    sockets.push(open(&signed_in(&bffs[1], "ann")).await);
    watcher.until("ann's return", |record| changes(record).len() == 5).await;
}

/// The runs that hold a lease.
fn leases(world: &World) -> Vec<String> {
    world.redis.cli(&["--raw", "KEYS", "*:lease:*"]).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_replica_ends_its_lease_and_users_who_moved_stay_online() {
    let world = World::new();
    let mut bffs = replicas(&world, 2, &["--presence-lease", "1h"]).await;
    let watcher = Reader::connect(&watch(&bffs[1], &["ann", "ben"])).await;
    let mut ann = open(&signed_in(&bffs[0], "ann")).await;
    until_changes(&watcher, &[("ann", true)]).await;
    let urls = [signed_in(&bffs[0], "ben"), signed_in(&bffs[1], "ben")];
    let ben = Reader::connect_with(ReaderOptions::new(&[&urls[0], &urls[1]])).await;
    until_changes(&watcher, &[("ann", true), ("ben", true)]).await;
    assert_eq!(leases(&world).len(), 2);
    bffs[0].process.sigterm();
    ann.until_closed().await;
    ben.until("the other replica", |record| record.live_on() == Some("bff-2")).await;
    assert_eq!(bffs[0].process.wait_exit(DEADLINE).await, 0);
    let left = leases(&world);
    assert!(left.len() == 1 && left[0].contains("bff-2"), "{left:?}");
    until_changes(&watcher, &[("ann", true), ("ben", true), ("ann", false)]).await;
    until_connections(&bffs[1], "ben", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_redis_is_not_a_leave_and_lost_presence_is_reported_again() {
    let world = World::alone();
    let proxy = Proxy::start(world.redis.addr()).await;
    let args = [&PEOPLE[..], &["--presence-lease", "1s", "--presence-grace", "10s"]].concat();
    let bff = Bff::spawn("bff-1", &format!("redis://{}", proxy.addr()), &args);
    bff.until_ready().await;
    let watcher = Reader::connect(&watch(&bff, &["ann", "ben"])).await;
    let _ann = open(&signed_in(&bff, "ann")).await;
    until_changes(&watcher, &[("ann", true)]).await;
    let before = leases(&world);
    proxy.refuse();
    proxy.cut();
    eventually("the lease is over", DEADLINE, async || leases(&world).is_empty()).await;
    // The replica has to miss it too.
    bff.until_not_ready().await;
    proxy.pass();
    bff.until_ready().await;
    eventually("another lease", DEADLINE, async || leases(&world).iter().any(|run| !before.contains(run)))
        .await;
    until_connections(&bff, "ann", 1).await;
    let _ben = open(&signed_in(&bff, "ben")).await;
    until_changes(&watcher, &[("ann", true), ("ben", true)]).await;

    world.redis.run(&["FLUSHALL"]);
    for user in ["ann", "ben"] {
        until_connections(&bff, user, 1).await;
        assert_eq!(presence(&bff, user).await["online"], true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_sent_to_readers_with_the_right() {
    let world = World::new();
    let bff = &replicas(&world, 1, &["--public-topics", "presence:open"]).await[0];
    let friend = token_with(SECRET, json!({ "user_id": "ben", "topics": ["presence:ann", "presence:a*"] }));
    let stranger = token("eve");
    let many =
        |count: usize| (0..count).map(|n| format!("&user=a{n}")).collect::<String>().replacen('&', "?", 1);
    for (path, bearer, status) in [
        ("/ann", Some(KEY), 200),
        ("/ann", Some(friend.as_str()), 200),
        ("/ben", Some(friend.as_str()), 403),
        ("?user=ann&user=al", Some(friend.as_str()), 200),
        ("?user=ann&user=ben", Some(friend.as_str()), 403),
        ("/ann", Some(stranger.as_str()), 403),
        ("/ann", Some("another-key"), 401),
        ("/ann", None, 401),
        ("/open", None, 200),
        ("", Some(KEY), 400),
        (&many(100), Some(friend.as_str()), 200),
        (&many(101), Some(KEY), 400),
        (&format!("/{}", "x".repeat(129)), Some(KEY), 400),
    ] {
        let (found, body) = get(bff, path, bearer).await;
        assert_eq!(found, status, "{path} {body}");
        assert_eq!(body["title"].is_string(), status != 200, "{path} {body}");
    }
    let (_, body) = get(bff, "/a%2Fb%20%C3%A9", Some(KEY)).await;
    assert_eq!(body["user"], "a/b é");
}
