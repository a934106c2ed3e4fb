use serde_json::json;

use super::stage::Stage;
use crate::world::entry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markup_is_shown_as_text_and_no_link_runs_a_script() {
    let stage = Stage::new().await;
    let title = r#"<img src=x onerror="document.title='run'">"#;
    let body = "<script>document.title='run'</script> &amp; <b>bold</b>";
    stage
        .push([
            json!({ "id": "markup", "title": title, "body": body }).to_string(),
            json!({ "id": "script", "title": "t", "action": { "label": "go", "url": "javascript:document.title='run'" } })
                .to_string(),
            json!({ "id": "data", "title": "t", "action": { "label": "go", "url": "data:text/html,x" } }).to_string(),
            json!({ "id": "link", "title": "t", "action": { "label": "go", "url": "https://example.org/" } }).to_string(),
            entry("last"),
        ])
        .await;
    let state =
        stage.page.until("the last one", |state| state.rows.first().is_some_and(|id| id == "last")).await;
    assert_eq!(state.came(), ["markup", "link", "last"], "what is no notification is none");
    assert!(state.row_texts.last().unwrap().contains(&format!("{title}{body}")), "{state:?}");
    let links = r#"return [...document.links].map((link) => link.href + " " + link.target + " " + link.rel)"#;
    let links: Vec<String> = serde_json::from_value(stage.page.run(links, json!([])).await).unwrap();
    assert!(!links.is_empty(), "in the list, and in a toast while it is there");
    assert!(links.iter().all(|link| link == "https://example.org/ _blank noopener noreferrer"), "{links:?}");
    let foreign = "return document.querySelectorAll('#viewer :is(img, script, b:not(.pill-words b))').length";
    assert_eq!(stage.page.run(foreign, json!([])).await, json!(0));
    assert!(!stage.page.chrome.driver().title().await.unwrap().contains("run"));
    stage.assert_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_overflows_a_narrow_window() {
    let stage = Stage::new().await;
    stage.page.resize(320, 800, 1.0).await;
    stage.hold(160, 100).await;
    let long = "x".repeat(190);
    stage
        .push([
            json!({ "id": "0", "title": long, "body": format!("https://example.org/{}", "y".repeat(400)) })
                .to_string(),
            json!({ "id": "1", "title": "t", "action": { "label": "z".repeat(80), "url": format!("/{long}") } })
                .to_string(),
            json!({ "id": "2", "title": "تم تحديث النظام", "body": "long ".repeat(200) }).to_string(),
        ])
        .await;
    let state = stage
        .page
        .until("all came", |state| {
            assert_eq!(state.overflow_px, 0, "{state:?}");
            state.rows.len() == 4 && state.toasts.len() == 4
        })
        .await;
    assert_eq!(state.came(), ["held", "0", "1", "2"]);
    stage.page.until_still().await;
    assert_eq!(stage.page.state().await.overflow_px, 0);
    stage.assert_quiet().await;
}
