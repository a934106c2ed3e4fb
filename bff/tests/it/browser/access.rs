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
/// Records, frame by frame, animations that move something or change its size.
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
async fn everything_visible_is_announced_and_has_a_name() {
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
async fn reduced_motion_has_fades_only() {
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
        const element = document.querySelector(css);
        const { left, top, bottom } = element.getBoundingClientRect();
        // On a phone the pill stands at the bottom, over the page, and grows upwards.
        const stands = getComputedStyle(element.parentElement).position === "fixed";
        return `${css} ${left} ${stands ? bottom : top + scrollY}`;
    });
"#;

/// How far apart letters stand in a type in which the sentence needs more lines when it counts the replicas.
const SPACING: &str = r#"
    const sentence = document.querySelector(".sentence");
    const trial = document.createElement("p");
    trial.className = "sentence";
    sentence.after(trial);
    const height = (text) => {
        trial.textContent = text;
        return trial.clientHeight;
    };
    const short = sentence.textContent.trim();
    const long = short.replace("Replicas", "Three replicas");
    for (let hundredths = 0; hundredths < 100; hundredths++) {
        trial.style.letterSpacing = `${hundredths / 100}em`;
        if (height(short) < height(long)) {
            trial.remove();
            return trial.style.letterSpacing;
        }
    }
    throw new Error("the sentence never needs more lines");
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_does_not_jump_when_a_notification_arrives() {
    let stage = Stage::new().await;
    for (width, height) in [(1_280, 900), (900, 700), (390, 844)] {
        for (name, script) in [("own", r#"return "0em""#), ("another", SPACING)] {
            stage.page.resize(width, height, 1.0).await;
            stage.page.load_as_new(&stage.door.url("/")).await;
            let spacing = stage.page.run(script, json!([])).await;
            let spacing = spacing.as_str().unwrap();
            stage.page.widen(spacing).await;
            nothing_jumps(&stage, &format!("{width} wide in {name} type, {spacing} apart")).await;
        }
    }
}

async fn nothing_jumps(stage: &Stage, how: &str) {
    let before = stage.page.run(PLACES, json!([])).await;
    stage.push((0..30).map(|n| entry(format!("{how} {n}")))).await;
    stage.page.until("all came", |state| state.rows.len() == 30).await;
    stage.page.network(false).await;
    stage.page.until("it is offline", |state| state.phase == "offline").await;
    assert_eq!(stage.page.run(PLACES, json!([])).await, before, "{how}, with toasts and offline");
    stage.push([entry(format!("{how} missed"))]).await;
    let begun = stage.page.state().await.clock_ms;
    stage.page.until("that is long ago", |state| state.clock_ms > begun + 1_000.0).await;
    stage.page.network(true).await;
    stage.page.until("it tells what was missed", |state| state.missed == 1).await;
    assert_eq!(stage.page.run(PLACES, json!([])).await, before, "{how}, with a notice");
}
