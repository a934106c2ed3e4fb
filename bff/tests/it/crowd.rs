//! Ten thousand users on three replicas, each of whom gets what is theirs and nothing else.

use carillon_harness::{DialOptions, Socket};
use carillon_protocol::{Notification, ServerMessage};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::people::{people_with, signed_in};
use crate::world::{World, entry};

const USERS: usize = 10_000;
/// Sockets that are opened, or read, at the same time.
const AT_ONCE: usize = 64;
/// Entries that are pushed at once.
const PUSHED: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_ten_thousand_users_gets_exactly_their_own() {
    let world = World::new();
    // All come from one address.
    let bffs = people_with(&world, 3, &["--readers-per-address-max", "10000"]).await;
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(
        files > USERS as u64 + 1_000,
        "{files} open files are allowed: raise the hard limit (ulimit -Hn)"
    );
    let urls: Vec<_> = (0..USERS).map(|n| signed_in(&bffs[n % 3], &format!("user-{n}"))).collect();
    let open = |(n, url): (usize, String)| async move {
        let mut socket = Socket::open(&url, &DialOptions::default()).await.unwrap();
        assert!(matches!(ServerMessage::parse(&socket.text().await).unwrap(), ServerMessage::Welcome(_)));
        (n, socket)
    };
    let sockets: Vec<_> =
        stream::iter(urls.into_iter().enumerate()).map(open).buffer_unordered(AT_ONCE).collect().await;

    // Everyone's neighbour comes first and last, so that a mix-up would show.
    let mut order: Vec<usize> = (0..USERS).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut order);
    let own = |n: &usize| {
        json!({"id": format!("for-{n}"), "to": {"user": format!("user-{n}")}, "body": "b"}).to_string()
    };
    for part in order.chunks(PUSHED) {
        world.push(part.iter().map(own)).await;
    }
    world.push([entry("the end")]).await;

    let read = |(n, mut socket): (usize, Socket)| async move {
        let mut ids = Vec::new();
        while ids.last().is_none_or(|last| last != "the end") {
            if let ServerMessage::Notification { notification, .. } =
                ServerMessage::parse(&socket.text().await).unwrap()
            {
                ids.push(serde_json::from_str::<Notification>(notification.get()).unwrap().id);
            }
        }
        assert_eq!(ids, [format!("for-{n}"), "the end".to_owned()]);
    };
    stream::iter(sockets).map(read).buffer_unordered(AT_ONCE).count().await;
    let mut sent = 0.0;
    for bff in &bffs {
        sent += bff.metric("carillon_notifications_sent_total", "").await;
    }
    assert!((sent - 2.0 * USERS as f64).abs() < 0.5, "{sent} were written");
}
