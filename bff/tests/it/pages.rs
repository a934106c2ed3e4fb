//! Where a page of history ends.

use carillon_broker::limits::ADVANCE_MAX_IDS;
use carillon_broker::{FanOut, MessageRef, NewMessage};
use carillon_harness::eventually;
use carillon_protocol::{Audience, Status};
use reqwest::Client;

use crate::limits::bff;
use crate::people::{PEOPLE, token};
use crate::world::{DEADLINE, World};

#[tokio::test]
async fn a_page_of_history_ends_at_its_bytes() {
    let world = World::new();
    let bff = bff(&world, &[]).await;
    let large = |id: usize| format!(r#"{{"id":"{id}","body":"b","data":"{}"}}"#, "x".repeat(60_000));
    world.push((0..40).map(large)).await;
    eventually("all are claimed", DEADLINE, async || {
        bff.metric("carillon_entries_claimed_total", "").await > 39.5
    })
    .await;
    let (mut ids, mut sizes, mut since) = (vec![], vec![], String::new());
    loop {
        let url = bff.http(&format!("/api/notifications?limit=1000&since={since}"));
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let page: carillon_protocol::http::Page = serde_json::from_str(&text).unwrap();
        if page.items.is_empty() {
            break;
        }
        let id = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap()["id"].clone();
        ids.extend(page.items.iter().map(|item| id(item.notification.get()).as_str().unwrap().to_owned()));
        sizes.push(text.len());
        since = page.next;
    }
    assert_eq!(ids, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size < 1_100_000), "{sizes:?}");
}

#[tokio::test]
async fn a_page_of_history_ends_after_a_bounded_number_of_reads() {
    const MESSAGES: usize = 900;
    let world = World::new();
    // Each message leaves three statuses in the history of its sender.
    for n in 0..MESSAGES {
        let id = n.to_string();
        let entry = format!(r#"{{"id":"{id}","from":"ann","to":{{"user":"zed"}},"body":"b"}}"#);
        let to = Audience::User("zed".to_owned());
        let message =
            NewMessage { id: &id, from: "ann", to: &to, entry: entry.as_bytes(), accepted_by: "bff-0" };
        world.broker.send(&message).await.unwrap();
    }
    while world.broker.claim("bff-0", FanOut::All).await.unwrap().waiting > 0 {}
    let sent = |n: usize| MessageRef { from: "ann".to_owned(), id: n.to_string() };
    let messages: Vec<_> = (0..MESSAGES).map(sent).collect();
    for status in [Status::Delivered, Status::Read] {
        for messages in messages.chunks(ADVANCE_MAX_IDS) {
            world.broker.advance("zed", messages, status, "bff-0").await.unwrap();
        }
    }
    world.push([r#"{"id":"last","to":{"user":"ann"},"body":"b"}"#.to_owned()]).await;
    let bff = bff(&world, &PEOPLE).await;
    eventually("it is claimed", DEADLINE, async || {
        bff.metric("carillon_entries_claimed_total", "").await > 0.5
    })
    .await;
    let page = async |since: &str| {
        let request = Client::new().get(bff.http(&format!("/api/notifications?since={since}")));
        request
            .bearer_auth(token("ann"))
            .send()
            .await
            .unwrap()
            .json::<carillon_protocol::http::Page>()
            .await
            .unwrap()
    };
    let first = page("").await;
    assert_eq!(first.items.len(), 0, "the page ends before the notification");
    let second = page(&first.next).await;
    assert_eq!(second.items.len(), 1);
    let end = page(&second.next).await;
    assert_eq!((end.items.len(), &end.next), (0, &second.next), "where there is no more, it stays");
}
