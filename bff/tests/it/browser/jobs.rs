use super::page::State;
use super::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_one_toast_that_changes_and_is_found_again_when_the_page_is_loaded_anew() {
    let stage = Stage::new().await;
    let page = &stage.page;
    page.click(r#"[data-testid="run-job"]"#).await;
    let runs = |state: &State| state.jobs == ["running"] && state.row_texts[0].contains("20 %");
    let state = page.until("it runs", runs).await;
    assert_eq!((state.shown.len(), state.job_toasts, state.rows.len()), (1, 1, 1), "{state:?}");
    assert_eq!(state.polite, ["Demo job: job started"]);

    page.load(&stage.door.url("/")).await;
    let there = |state: &State| state.jobs == ["running"] && state.job_toasts == 1;
    page.until("it is there again", there).await;
    let done = |state: &State| {
        state.jobs == ["done"] && state.toasts.iter().any(|toast| toast.severity == "success")
    };
    let state = page.until("it is done", done).await;
    assert_eq!((state.job_toasts, state.rows.len()), (1, 1), "{state:?}");
    assert!(state.shown.len() <= 1, "one toast, whose words change: {state:?}");
    page.until("the toast goes", |state| state.toasts.is_empty()).await;

    page.load(&stage.door.url("/")).await;
    page.until("it is told that it is done", |state| state.jobs == ["done"]).await;
    stage.assert_quiet().await;
}
