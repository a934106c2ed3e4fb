use tokio::time::{Duration, interval};

use super::page::State;
use super::stage::Stage;
use crate::world::{DEADLINE, entry};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_whose_replica_is_killed_reconnects_to_another_without_loss() {
    let mut stage = Stage::new().await;
    stage.push((0..5).map(entry)).await;
    stage.page.until("the first ones", |state| state.rows.len() == 5).await;
    let held_by = stage.held_by().await;
    let doomed = stage.door.bffs[held_by].name.clone();
    stage.door.bffs[held_by].process.kill();
    stage.push((5..10).map(entry)).await;
    let back = |state: &State| state.phase == "live" && state.replica.as_ref() != Some(&doomed);
    let state = stage.page.until("another replica", back).await;
    assert!(went_away(&state), "{state:?}");
    assert!(state.pill.contains("Live") && state.pill.contains(state.replica.as_ref().unwrap()), "{state:?}");
    stage.push((10..15).map(entry)).await;
    all_came(&stage, 15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_stays_with_its_replica() {
    let stage = Stage::new().await;
    let held_by = stage.held_by().await;
    for _ in 0..5 {
        stage.page.load(&stage.door.url("/")).await;
        assert_eq!(stage.held_by().await, held_by);
    }
    stage.assert_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_survives_a_rolling_restart_without_loss() {
    let mut stage = Stage::new().await;
    let mut pushed = 0;
    let mut old = vec![0, 1, 2];
    while !old.is_empty() {
        // The one that the page hangs on is always the next, when it is an old one.
        let held_by = stage.held_by().await;
        let next = old.iter().position(|at| *at == held_by).unwrap_or_default();
        let at = old.remove(next);
        stage.door.bffs[at].process.sigterm();
        let mut beat = interval(Duration::from_millis(100));
        while stage.door.bffs[at].process.is_running() {
            beat.tick().await;
            stage.push([entry(pushed)]).await;
            pushed += 1;
        }
        assert_eq!(stage.door.bffs[at].process.wait_exit(DEADLINE).await, 0);
        stage.door.start_again(at).await;
    }
    let state = all_came(&stage, pushed).await;
    assert!(went_away(&state), "{state:?}");
}

/// Whether the pill has ever shown that the page was not connected.
fn went_away(state: &State) -> bool {
    state.phases.iter().any(|phase| ["waiting", "connecting"].contains(&phase.as_str()))
}

/// Each once, in order, and the page is live.
async fn all_came(stage: &Stage, count: usize) -> State {
    let state =
        stage.page.until("all came", |state| state.rows.len() >= count && state.phase == "live").await;
    let expected: Vec<_> = (0..count).map(|n| n.to_string()).collect();
    assert_eq!(state.came(), expected);
    assert_eq!((state.total(), state.gap, state.gap_rows), (count, false, 0), "{state:?}");
    state
}
