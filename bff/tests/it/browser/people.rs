use carillon_harness::eventually;
use serde_json::json;

use super::page::{Page, State};
use super::stage::Stage;
use crate::world::DEADLINE;

pub(super) async fn sign_in(page: &Page, user: &str) {
    page.until("signing in is offered", |state| state.sign_in).await;
    page.click(r#"[data-testid="sign-in"]"#).await;
    page.fill(r#"[data-testid="sign-in-form"] [name="user"]"#, user).await;
    page.click(r#"[data-testid="sign-in-form"] [type="submit"]"#).await;
    let signed_in = |state: &State| state.who.as_deref() == Some(user) && state.phase == "live";
    page.until("somebody is signed in", signed_in).await;
}

pub(super) async fn send(page: &Page, to: &str, text: &str) {
    let name = r#"[data-testid="composer"] [name="to"]"#;
    page.run(r#"document.querySelector(arguments[0]).value = """#, json!([name])).await;
    page.fill(name, to).await;
    page.fill(r#"[data-testid="composer"] [name="text"]"#, text).await;
    page.click(r#"[data-testid="send"]"#).await;
}

/// Waits until the last sent message has this status, and shows it.
pub(super) async fn until_ticked(page: &Page, status: &str, words: &str) {
    let ticked = |state: &State| state.sent.first().is_some_and(|sent| sent.status == status);
    let state = page.until(status, ticked).await;
    assert_eq!(state.sent[0].words, words);
}

/// Waits until this many are unread, wherever that is shown.
async fn until_unread(page: &Page, unread: usize) {
    let (count, title) = match unread {
        0 => (String::new(), "Carillon".to_owned()),
        unread => (unread.to_string(), format!("({unread}) Carillon")),
    };
    let told = |state: &State| state.unread.len() == unread && state.count == count && state.title == title;
    page.until(&format!("{unread} are unread"), told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_sign_in_where_the_service_does_not_offer_it() {
    let stage = Stage::new().await;
    let answered = r#"return performance.getEntriesByType("resource").some((one) => one.name.endsWith("/api/demo") && one.responseEnd > 0)"#;
    let is_answered = async || stage.page.run(answered, json!([])).await == json!(true);
    eventually("the viewer knows whether anybody may sign in", DEADLINE, is_answered).await;
    stage.page.until_still().await;
    let state = stage.page.state().await;
    assert!(!state.sign_in && state.who.is_none(), "{state:?}");
    stage.assert_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_gets_its_ticks_and_counts_until_it_is_read_on_any_device() {
    let stage = Stage::of_people().await;
    let anna = &stage.page;
    sign_in(anna, "anna").await;
    send(anna, "bob", "Are you there?").await;
    until_ticked(anna, "sent", "Sent").await;

    let bob = stage.another().await;
    bob.look(false).await;
    sign_in(&bob, "bob").await;
    until_unread(&bob, 1).await;
    until_ticked(anna, "delivered", "Delivered").await;
    for page in [anna, &bob] {
        page.load(&stage.door.url("/")).await;
    }
    until_unread(&bob, 1).await;
    until_ticked(anna, "delivered", "Delivered").await;

    bob.look(true).await;
    until_ticked(anna, "read", "Read").await;
    until_unread(&bob, 0).await;

    bob.click(r#"[data-testid="answer"]"#).await;
    bob.fill(r#"[data-testid="composer"] [name="text"]"#, "I am").await;
    bob.click(r#"[data-testid="send"]"#).await;
    until_ticked(&bob, "read", "Read").await;
    let state = anna.state().await;
    assert!(state.polite.iter().any(|said| said == "Message from bob. I am."), "{state:?}");
    let texts: Vec<_> = state.sent.iter().map(|sent| sent.text.as_str()).collect();
    assert_eq!((texts, state.rows.len()), (vec!["Are you there?"], 2), "{state:?}");

    bob.look(false).await;
    send(anna, "bob", "Good").await;
    send(anna, "bob", "Until later").await;
    until_unread(&bob, 2).await;
    let device = anna;
    device.click(r#"[data-testid="sign-out"]"#).await;
    let nobody = |state: &State| state.who.is_none() && state.rows.is_empty() && state.phase == "live";
    device.until("nobody is signed in, and sees nothing of it", nobody).await;
    device.look(false).await;
    sign_in(device, "bob").await;
    until_unread(device, 2).await;
    bob.look(true).await;
    until_unread(&bob, 0).await;
    until_unread(device, 0).await;
    assert_eq!(bob.complaints().await, [""; 0]);
    stage.assert_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_in_page_fetches_no_token_during_an_outage_and_reconnects_later() {
    let mut stage = Stage::of_people().await;
    sign_in(&stage.page, "anna").await;
    let held_by = stage.held_by().await;
    stage.door.world.redis.stop();
    for bff in &stage.door.bffs {
        bff.until_not_ready().await;
    }
    stage.door.bffs[held_by].process.kill();
    let state = stage.page.until("it is not connected", |state| state.phase != "live").await;
    let begun = state.clock_ms;
    stage.page.until("a while has passed", |state| state.clock_ms > begun + 4_000.0).await;
    let asked = r#"return performance.getEntriesByType("resource").filter((one) => one.name.endsWith("/api/demo/token")).length"#;
    assert_eq!(stage.page.run(asked, json!([])).await, json!(1), "that of signing in");
    stage.door.world.redis.start_again();
    let back = |state: &State| state.phase == "live" && state.who.as_deref() == Some("anna");
    stage.page.until("it is back, as the same user", back).await;
}
