//! Ten thousand users on three replicas, each of whom gets what is theirs and nothing else.

use std::ops::Range;

use carillon_harness::{DialOptions, Socket};
use carillon_protocol::received::Delivered;
use carillon_protocol::{Notification, ServerMessage};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::people::{people_with, signed_in};
use crate::world::{Bff, World, entry};

const USERS: usize = 10_000;
/// Files that are open beside the sockets.
const OTHER_FILES: usize = 1_000;
/// Sockets that are opened, or read, at the same time.
const AT_ONCE: usize = 64;
/// Entries that are pushed at once.
const PUSHED: usize = 500;

/// All are there together, or one part after the other where this process may not open so many files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_ten_thousand_users_gets_exactly_their_own() {
    let world = World::new();
    // All come from one address.
    let bffs = people_with(&world, 3, &["--readers-per-address-max", "10000"]).await;
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let together = usize::try_from(files).unwrap_or(USERS).saturating_sub(OTHER_FILES).min(USERS);
    assert!(together >= AT_ONCE, "{files} open files are allowed: raise the hard limit (ulimit -Hn)");
    for first in (0..USERS).step_by(together) {
        each_gets_their_own(&world, &bffs, first..USERS.min(first + together)).await;
    }
    let mut sent = 0.0;
    for bff in &bffs {
        sent += bff.metric("carillon_notifications_sent_total", "").await;
    }
    assert!((sent - 2.0 * USERS as f64).abs() < 0.5, "{sent} were written");
}

async fn each_gets_their_own(world: &World, bffs: &[Bff], users: Range<usize>) {
    let open = |n: usize| async move {
        let url = signed_in(&bffs[n % bffs.len()], &format!("user-{n}"));
        let mut socket = Socket::open(&url, &DialOptions::default()).await.unwrap();
        assert!(matches!(ServerMessage::parse(&socket.text().await).unwrap(), ServerMessage::Welcome(_)));
        (n, socket)
    };
    let sockets: Vec<_> = stream::iter(users.clone()).map(open).buffer_unordered(AT_ONCE).collect().await;

    // Everyone's neighbour comes first and last, so that a mix-up would show.
    let mut order: Vec<usize> = users.clone().collect();
    fastrand::Rng::with_seed(3).shuffle(&mut order);
    let own = |n: &usize| {
        json!({"id": format!("for-{n}"), "to": {"user": format!("user-{n}")}, "body": "b"}).to_string()
    };
    for part in order.chunks(PUSHED) {
        world.push(part.iter().map(own)).await;
    }
    let end = &format!("the end of {}", users.start);
    world.push([entry(end)]).await;

    let read = |(n, mut socket): (usize, Socket)| async move {
        let mut ids = Vec::new();
        while ids.last() != Some(end) {
            if let ServerMessage::Notification(Delivered { notification, .. }) =
                ServerMessage::parse(&socket.text().await).unwrap()
            {
                ids.push(serde_json::from_str::<Notification>(notification.get()).unwrap().id);
            }
        }
        assert_eq!(ids, [format!("for-{n}"), end.clone()]);
    };
    stream::iter(sockets).map(read).buffer_unordered(AT_ONCE).count().await;
}
