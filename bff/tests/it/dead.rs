use carillon_harness::{Reader, eventually};

use crate::world::{DEADLINE, World, entry};

#[tokio::test]
async fn what_cannot_be_read_goes_to_the_dead_list_is_counted_and_logged_and_stops_nothing() {
    let world = World::new();
    let mut bff = world.bff("bff-1").await;
    let reader = Reader::connect(&bff.ws()).await;
    let long = "x".repeat(4_001);
    let loud = r#"{"body":"b","severity":"loud"}"#;
    world
        .push([
            entry("first"),
            "{".into(),
            String::new(),
            loud.into(),
            long.clone(),
            "x".repeat(70_000),
            entry("last"),
        ])
        .await;
    world.redis.run(&["LPUSH", "Notification-List", "{not json"]);
    let received = reader.wait_for(2).await;
    assert_eq!(received.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["first", "last"]);
    eventually("all six are dead", DEADLINE, async || world.broker.dead().await.unwrap().len() == 6).await;
    let mut dead: Vec<_> =
        world.broker.dead().await.unwrap().into_iter().map(|dead| (dead.reason, dead.raw.len())).collect();
    dead.sort();
    let expected = [
        ("empty", 0),
        ("invalid", 1),
        ("invalid", 9),
        ("invalid", loud.len()),
        ("invalid", 1_024),
        ("too_large", 1_024),
    ];
    assert_eq!(dead, expected.map(|(reason, length)| (reason.to_owned(), length)));
    assert!((bff.metric("carillon_entries_refused_total", "").await - 6.0).abs() < 0.5);
    assert!((bff.metric("carillon_entries_refused_total", "too_large").await - 1.0).abs() < 0.5);
    let line = bff.process.wait_line("loud").await;
    assert!(line.contains("severity") && line.contains("dead list"), "{line}");
    // The other way to read steps over them too.
    let page = reqwest::get(bff.http("/api/notifications")).await.unwrap().text().await.unwrap();
    assert_eq!(serde_json::from_str::<carillon_protocol::Page>(&page).unwrap().items.len(), 2);
}
