use super::stage::Stage;
use crate::world::entry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_a_network_shows_that_and_catches_up_later() {
    let stage = Stage::new().await;
    stage.push([entry(0)]).await;
    stage.page.until("the first one", |state| state.rows.len() == 1).await;
    stage.page.network(false).await;
    let state = stage.page.until("it is offline", |state| state.phase == "offline").await;
    assert!(state.pill.contains("Offline: your device has no network"), "{state:?}");
    stage.push((1..4).map(entry)).await;
    stage.page.network(true).await;
    let state = stage.page.until("it is back", |state| state.phase == "live" && state.rows.len() >= 4).await;
    assert_eq!(state.came(), ["0", "1", "2", "3"]);
    let state = stage.page.until("it tells what was missed", |state| state.missed == 3).await;
    assert_eq!(state.notice.trim(), "3 while you were away");
    assert!(!state.gap);
}
