//! The page that shows the API to people, behind the front door.

use std::time::Duration;

use carillon_harness::eventually;
use serde_json::{Value, json};

use super::stage::Stage;

/// A page of this size takes its time on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);
const SHOWN: &str = r#"return document.querySelectorAll(".opblock").length"#;
const ERRORS: &str =
    r#"return [...document.querySelectorAll(".errors-wrapper")].map((one) => one.innerText)"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_the_api_shows_every_operation_and_finds_no_fault() {
    let stage = Stage::new().await;
    stage.page.complaints().await;
    stage.page.chrome.driver().goto(stage.door.url("/docs")).await.unwrap();
    let document: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let all: usize = paths.values().map(|methods| methods.as_object().unwrap().len()).sum();
    eventually("every operation is shown", DEADLINE, async || {
        stage.page.run(SHOWN, json!([])).await == json!(all)
    })
    .await;
    assert_eq!(stage.page.run(ERRORS, json!([])).await, json!([]));
    stage.assert_quiet().await;
}
