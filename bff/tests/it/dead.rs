use carillon_broker::DeadList;
use carillon_broker::limits::DEAD_RAW_MAX_BYTES;
use carillon_harness::{Process, Reader, eventually};

use crate::world::{DEADLINE, World, entry};

/// The id of the dead entry whose bytes have a word in them.
async fn dead_id(world: &World, word: &str) -> String {
    let entries = world.broker.dead(DeadList::Producers).await.unwrap();
    let has = |raw: &[u8]| String::from_utf8_lossy(raw).contains(word);
    entries.into_iter().find(|one| has(&one.raw)).expect(word).id
}

#[tokio::test]
async fn an_unreadable_entry_goes_to_the_dead_list_and_stops_nothing() {
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
    eventually("all six are dead", DEADLINE, async || {
        world.broker.dead(DeadList::Producers).await.unwrap().len() == 6
    })
    .await;
    let mut dead: Vec<_> = world
        .broker
        .dead(DeadList::Producers)
        .await
        .unwrap()
        .into_iter()
        .map(|dead| (dead.reason, dead.raw.len()))
        .collect();
    dead.sort();
    let expected = [
        ("empty", 0),
        ("invalid", 1),
        ("invalid", 9),
        ("invalid", loud.len()),
        ("invalid", long.len()),
        ("too_large", DEAD_RAW_MAX_BYTES),
    ];
    assert_eq!(dead, expected.map(|(reason, length)| (reason.to_owned(), length)));
    assert!((bff.metric("carillon_entries_refused_total", "").await - 6.0).abs() < 0.5);
    assert!((bff.metric("carillon_entries_refused_total", "too_large").await - 1.0).abs() < 0.5);
    let line = bff.process.wait_line("loud").await;
    assert!(line.contains("severity") && line.contains("dead list"), "{line}");
    // Listed, and put back: to be refused again, or dropped.
    let run = async |args: &[&str]| {
        let url = world.redis.url();
        let args = [&["dead", "--redis-url", &url][..], args].concat();
        let mut process = Process::spawn(env!("CARGO_BIN_EXE_bff"), &args, &[]);
        let code = process.wait_exit(DEADLINE).await;
        (code, process.stdout().join("\n"), process.stderr().join("\n"))
    };
    let (code, shown, _) = run(&[]).await;
    assert!(
        code == 0 && shown.contains("producers: 6 entries") && shown.contains("people: 0 entries"),
        "{shown}"
    );
    let loud = dead_id(&world, "loud").await;
    assert!(shown.contains(&format!("{loud} invalid")), "{shown}");
    assert_eq!(run(&["--put-back", &loud]).await.0, 0);
    eventually("it is refused again", DEADLINE, async || {
        let entries = world.broker.dead(DeadList::Producers).await.unwrap();
        entries.len() == 6 && entries.last().unwrap().id != loud
    })
    .await;
    assert_eq!(run(&["--drop", &dead_id(&world, "loud").await]).await.0, 0);
    assert_eq!(world.broker.dead(DeadList::Producers).await.unwrap().len(), 5);
    let (code, _, why) = run(&["--drop", "1-0", "--list", "people"]).await;
    assert!(code == 1 && why.contains("the dead list people has no entry 1-0"), "{code} {why}");
    // The other way to read skips them too.
    let page = reqwest::get(bff.http("/api/notifications")).await.unwrap().text().await.unwrap();
    assert_eq!(serde_json::from_str::<carillon_protocol::http::Page>(&page).unwrap().items.len(), 2);
}
