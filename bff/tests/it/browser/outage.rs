use super::stage::Stage;
use crate::world::entry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_redis_with_its_data_is_invisible() {
    let stage = Stage::durable().await;
    stage.push((0..3).map(entry)).await;
    stage.page.until("the first ones", |state| state.rows.len() == 3).await;
    stage.door.world.redis.stop();
    for bff in &stage.door.bffs {
        bff.until_not_ready().await;
    }
    stage.door.world.redis.start_again();
    stage.push((3..6).map(entry)).await;
    let state = stage.page.until("all came", |state| state.rows.len() >= 6).await;
    assert_eq!(state.came(), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(state.phases, ["live"], "the page stayed connected");
    stage.assert_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_redis_without_its_data_shows_a_gap() {
    let stage = Stage::new().await;
    stage.push((0..3).map(entry)).await;
    stage.page.until("the first ones", |state| state.rows.len() == 3).await;
    stage.door.world.redis.start_again_empty();
    stage.push((3..6).map(entry)).await;
    let state =
        stage.page.until("the new ones and the gap", |state| state.rows.len() >= 6 && state.gap).await;
    assert_eq!(state.came(), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!((state.gap_rows, state.notice.trim()), (1, "Older ones are gone"));
    assert_eq!(state.phases, ["live"], "the page stayed connected");
    stage.page.click(r#"[data-testid="notice"] .close"#).await;
    stage.page.until("the notice is closed", |state| state.notice.is_empty() && state.gap_rows == 1).await;
    stage.assert_quiet().await;
}
