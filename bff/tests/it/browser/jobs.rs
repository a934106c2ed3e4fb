use serde_json::json;

use super::page::State;
use super::stage::Stage;

/// Starts a job that takes longer than a page that is loaded anew, in the browser's own session.
const LONG_JOB: &str = r#"
    const session = localStorage.getItem("carillon-session");
    const headers = { "carillon-session": session, "content-type": "application/json" };
    fetch("/api/jobs", { method: "POST", headers, body: '{"name":"Import","steps":100}' });
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_one_toast_that_changes_and_is_found_again_after_a_reload() {
    let stage = Stage::new().await;
    let page = &stage.page;
    page.click(r#"[data-testid="run-job"]"#).await;
    let said = |state: &State, words: &str| state.polite.iter().any(|said| said.starts_with(words));
    let done = |state: &State| state.jobs == ["done"] && said(state, "Success: Demo job. Done.");
    let state = page.until("it is done", done).await;
    assert_eq!((state.shown.len(), state.rows.len(), state.polite.len()), (1, 1, 2), "{state:?}");
    assert_eq!(state.polite[0], "Demo job: job started");

    page.run(LONG_JOB, json!([])).await;
    let runs = |state: &State| state.jobs == ["running", "done"] && said(state, "Import: job started");
    page.until("another one runs", runs).await;
    page.load(&stage.door.url("/")).await;
    let there = |state: &State| state.jobs == ["running", "done"] && state.job_toasts == 1;
    let before = page.until("it is there again, with its toast", there).await;
    let further = |state: &State| there(state) && state.toasts[0].text != before.toasts[0].text;
    let state = page.until("it comes further", further).await;
    assert!(state.shown.len() <= 1, "one toast, whose words change: {state:?}");
    stage.assert_quiet().await;
}
