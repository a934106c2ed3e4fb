use serde_json::json;

use super::page::State;
use super::stage::Stage;
use crate::world::entry;

/// Elements that a pointer or a keyboard uses and that have no name, or hardly any room.
const UNUSABLE: &str = r#"
    const name = (element) => (element.getAttribute("aria-label") ?? element.textContent).trim();
    const used = [...document.querySelectorAll("button, a[href]")];
    return used.filter((element) => !name(element)).map((element) => element.outerHTML);
"#;
/// Writes down, frame by frame, what is animated that moves something or changes its size.
const WATCH_MOTION: &str = r#"
    const still = ["opacity", "visibility", "color", "background-color", "border-color", "content-visibility"];
    const words = ["offset", "easing", "composite", "computedOffset"];
    const animated = (animation) => animation.transitionProperty
        ? [animation.transitionProperty]
        : animation.effect.getKeyframes().flatMap(Object.keys).filter((key) => !words.includes(key));
    const moved = window.moved = new Set();
    const look = () => {
        document.getAnimations().flatMap(animated).filter((name) => !still.includes(name))
            .forEach((name) => moved.add(name));
        requestAnimationFrame(look);
    };
    look();
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_seen_is_also_said_and_everything_has_a_name() {
    let stage = Stage::new().await;
    let notification = |id: &str, severity: &str, title: &str| {
        json!({ "id": id, "severity": severity, "title": title, "body": "Order 4711" }).to_string()
    };
    stage
        .push([
            notification("0", "success", "Payment received"),
            notification("1", "error", "Payment failed"),
        ])
        .await;
    let state = stage
        .page
        .until("both are said", |state| !state.polite.is_empty() && !state.assertive.is_empty())
        .await;
    assert!(
        state.polite[0].starts_with("Success: Payment received. Order 4711. Claimed by bff-"),
        "{state:?}"
    );
    assert!(
        state.assertive[0].starts_with("Error: Payment failed. Order 4711. Claimed by bff-"),
        "{state:?}"
    );
    let live =
        r#"return [...document.querySelectorAll("[aria-live]")].map((one) => one.getAttribute("aria-live"))"#;
    let live = stage.page.run(live, json!([])).await;
    assert!(
        live.as_array().unwrap().contains(&json!("polite"))
            && live.as_array().unwrap().contains(&json!("assertive"))
    );
    assert_eq!(stage.page.run(UNUSABLE, json!([])).await, json!([]));
    stage.page.until("the toasts go", |state| state.toasts.is_empty()).await;
    assert_eq!(stage.page.run(UNUSABLE, json!([])).await, json!([]));
    stage.assert_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_less_motion_gets_fades_only() {
    let stage = Stage::new().await;
    for (wish, moves) in [("no-preference", true), ("reduce", false)] {
        stage.page.prefer(&[("prefers-reduced-motion", wish)]).await;
        stage.page.load(&stage.door.url("/")).await;
        stage.page.run(WATCH_MOTION, json!([])).await;
        stage.push((0..3).map(|n| entry(format!("{wish} {n}")))).await;
        let gone = |state: &State| state.shown.len() == 3 && state.toasts.is_empty();
        stage.page.until("three toasts came and went", gone).await;
        let moved = stage.page.run("return [...window.moved]", json!([])).await;
        assert_eq!(moved.as_array().unwrap().is_empty(), !moves, "{wish}: {moved}");
    }
    stage.assert_quiet().await;
}

/// Where the fixed parts of the page are.
const PLACES: &str = r#"
    const fixed = ["h1", ".sentence", '[data-testid="pill"]', ".race h2", ".list h2"];
    return fixed.map((css) => {
        const { left, top } = document.querySelector(css).getBoundingClientRect();
        return `${css} ${left} ${top + scrollY}`;
    });
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_jumps_when_something_comes() {
    let stage = Stage::new().await;
    for (width, height) in [(1_280, 900), (900, 700), (390, 844)] {
        stage.page.resize(width, height, 1.0).await;
        stage.page.load(&stage.door.url("/")).await;
        let before = stage.page.run(PLACES, json!([])).await;
        stage.push((0..30).map(|n| entry(format!("{width} {n}")))).await;
        stage.page.until("all came", |state| state.rows.len() == 30).await;
        stage.page.network(false).await;
        stage.page.until("it is offline", |state| state.phase == "offline").await;
        assert_eq!(stage.page.run(PLACES, json!([])).await, before, "{width} wide, with toasts and offline");
        stage.push([entry(format!("{width} missed"))]).await;
        stage.page.network(true).await;
        stage.page.until("it tells what was missed", |state| state.missed == 1).await;
        assert_eq!(stage.page.run(PLACES, json!([])).await, before, "{width} wide, with a notice");
    }
}
