use thirtyfour::Key;

use super::stage::Stage;
use crate::world::entry;

/// How long a toast lives, and then some, on the page's clock.
const LONGER_THAN_A_LIFE_MS: f64 = 3_000.0 * 1.5;
/// In the corner where toasts come, and far from it.
const CORNER: (i64, i64) = (1_200, 140);
const ELSEWHERE: (i64, i64) = (20, 400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_by_redis_cli_is_a_toast_and_a_row_and_the_toast_goes_by_itself() {
    let stage = Stage::new().await;
    stage.door.world.redis.run(&["LPUSH", "Notification-List", "hello"]);
    stage.door.world.redis.run(&["PUBLISH", "Notification-Channel", "x"]);
    let state =
        stage.page.until("a toast", |state| !state.shown.is_empty() && !state.polite.is_empty()).await;
    let toast = &state.shown[0];
    let winner = state.race.keys().next().unwrap();
    assert!(
        toast.text.contains("hello") && toast.text.contains(&format!("claimed by {winner}")),
        "{toast:?}"
    );
    assert_eq!((toast.severity.as_str(), state.shown.len()), ("info", 1));
    assert_eq!(state.came(), [toast.id.as_str()]);
    assert!(
        state.row_texts[0].contains("hello") && state.polite[0].starts_with("hello. Claimed by"),
        "{state:?}"
    );
    let state = stage.page.until("the toast goes", |state| state.toasts.is_empty()).await;
    assert_eq!((state.rows.len(), state.total()), (1, 1));
    stage.assert_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn toasts_wait_under_a_pointer_or_a_focus_and_can_be_closed() {
    let stage = Stage::new().await;
    let page = &stage.page;
    stage.hold(CORNER.0, CORNER.1).await;
    stage.push([entry("one"), entry("two")]).await;
    let state = page.until("two more", |state| state.staying().len() == 3).await;
    let begun = state.clock_ms;
    page.until("a life has passed", |state| {
        assert!(state.held && state.staying() == ["held", "one", "two"], "{state:?}");
        state.clock_ms > begun + LONGER_THAN_A_LIFE_MS
    })
    .await;
    page.press(Key::Escape).await;
    page.until("Esc closes the newest", |state| state.staying() == ["held", "one"]).await;
    page.click(r#"[data-id="held"] .close"#).await;
    page.until("its button closes a toast", |state| state.staying() == ["one"]).await;

    page.point_at(CORNER.0, CORNER.1).await;
    page.tab_to(r#"[data-id="one"] .close"#).await;
    page.point_at(ELSEWHERE.0, ELSEWHERE.1).await;
    let begun = page.state().await.clock_ms;
    page.until("a life has passed", |state| {
        assert!(state.held && state.staying() == ["one"], "{state:?}");
        state.clock_ms > begun + LONGER_THAN_A_LIFE_MS
    })
    .await;
    stage.push([entry("three")]).await;
    page.until("another one", |state| state.staying() == ["one", "three"]).await;
    page.press(Key::Enter).await;
    page.until("Enter closes the toast", |state| state.staying() == ["three"]).await;
    page.press(Key::Escape).await;
    let state = page.until("none is left", |state| state.toasts.is_empty()).await;
    assert_eq!(state.came(), ["held", "one", "two", "three"]);
    stage.assert_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_shows_five_toasts_and_counts_the_rest() {
    let stage = Stage::new().await;
    let page = &stage.page;
    page.resize(1_280, 900, 1.0).await;
    stage.hold(CORNER.0, CORNER.1).await;
    stage.push((1..30).map(entry)).await;
    let state = page
        .until("all came", |state| {
            assert!(state.toasts.len() <= 5, "{state:?}");
            state.rows.len() == 30
        })
        .await;
    let state = page
        .until("the rest is counted", |now| now.clock_ms > state.clock_ms && now.more == "+25 more")
        .await;
    assert_eq!(state.staying(), ["held", "1", "2", "3", "4"]);
    assert_eq!(state.total(), 30);
    assert!(state.race.keys().all(|name| ["bff-1", "bff-2", "bff-3"].contains(&name.as_str())), "{state:?}");
    let mut expected: Vec<_> = (1..30).map(|n| n.to_string()).collect();
    expected.insert(0, "held".to_owned());
    assert_eq!(state.came(), expected);

    page.click(r#"[data-testid="more"]"#).await;
    page.until("nobody waits any more", |state| state.more.is_empty()).await;
    page.point_at(ELSEWHERE.0, ELSEWHERE.1).await;
    page.until("all toasts go", |state| state.toasts.is_empty()).await;
    stage.assert_quiet().await;
}
