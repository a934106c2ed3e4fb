//! `examples/chat.html` as somebody opens it: from another web server, with nothing built.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use carillon_harness::free_port;
use serde_json::{Value, json};
use thirtyfour::{By, Key};
use tokio::net::TcpListener;
use tokio::sync::MutexGuard;
use tokio_util::task::TaskTracker;

use super::chrome::Chrome;
use super::stage::TURN;
use crate::upstream::WEBHOOK;
use crate::world::{Bff, World};

const PAGE: &str = include_str!("../../../../examples/chat.html");
const LINES_MAX: usize = 149;
const DEADLINE: Duration = Duration::from_secs(60);
const READ: &str = r##"
    return {
        status: document.getElementById("status").textContent,
        lines: [...document.querySelectorAll("#log li")].map((line) => ({
            kind: line.className,
            text: line.querySelector("p").textContent,
            note: line.querySelector("small").textContent.split(" · ")[1] ?? "",
        })),
        kept: JSON.parse(Object.values(localStorage)[0] ?? "{}"),
    };
"##;

/// The page in a browser, before a replica, over Redis.
struct Chat {
    chrome: Chrome,
    bff: Bff,
    world: World,
    url: String,
    origin: String,
    _turn: MutexGuard<'static, ()>,
}

impl Chat {
    async fn open() -> Self {
        let turn = TURN.lock().await;
        let world = World::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let files = Router::new()
            .route("/chat.html", get(async || Html(PAGE)))
            .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
            .route("/incoming", post(async || StatusCode::NO_CONTENT));
        TaskTracker::new().spawn(axum::serve(listener, files).into_future());
        let bff = replica(&world, free_port(), &origin).await;
        let url = format!("{origin}/chat.html?server={}", bff.http(""));
        let chat = Self { chrome: Chrome::start().await, bff, world, url, origin, _turn: turn };
        chat.load().await;
        chat
    }

    async fn load(&self) {
        self.chrome.driver().goto(&self.url).await.unwrap();
        self.until("it is live", |page| status(page).starts_with("Live")).await;
    }

    async fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let page = self.chrome.driver().execute(READ, Vec::new()).await.unwrap().json().clone();
            if condition(&page) {
                return page;
            }
            assert!(Instant::now() < end, "the page never came to this: {what}\n{page:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn say(&self, text: &str) {
        let input = self.chrome.driver().find(By::Id("text")).await.unwrap();
        input.send_keys(text + Key::Enter).await.unwrap();
    }

    /// The id under which the application knows the session of the page.
    async fn session(&self) -> String {
        let page = self.until("a session", |page| page["kept"]["session"].is_string()).await;
        let open = reqwest::Client::new().post(self.bff.http("/api/sessions"));
        let open = open.header("carillon-session", page["kept"]["session"].as_str().unwrap());
        let answer: Value = open.send().await.unwrap().json().await.unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }
}

async fn replica(world: &World, port: u16, origin: &str) -> Bff {
    let listen = (Ipv4Addr::LOCALHOST, port).into();
    let upstream = format!("{origin}/incoming");
    let application = ["--upstream-url", &upstream, "--webhook-secret", WEBHOOK];
    let args = [&["--allowed-origins", origin][..], &application].concat();
    let bff = Bff::spawn_at("bff-1", listen, &world.redis.url(), &args);
    bff.until_ready().await;
    bff
}

fn status(page: &Value) -> &str {
    page["status"].as_str().unwrap()
}

/// Kind, text and note of each line.
fn lines(page: &Value) -> Vec<(&str, &str, &str)> {
    page["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let field = |name| line[name].as_str().unwrap();
            (field("kind"), field("text"), field("note"))
        })
        .collect()
}

#[test]
fn it_is_short_and_loads_nothing() {
    let count = PAGE.lines().count();
    assert!(count <= LINES_MAX, "{count} lines, at most {LINES_MAX}");
    assert!(PAGE.lines().all(|line| line.len() <= 140), "lines that can be read");
    for loads in ["src=", "import ", "<link", "@import", "url("] {
        assert!(!PAGE.contains(loads), "{loads}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_goes_on_through_a_restart_and_a_reload_in_the_same_session() {
    let mut chat = Chat::open().await;
    let session = chat.session().await;
    let answer = |id: &str, body: &str| {
        let buttons = json!([{ "text": "Yes", "payload": { "yes": true } }]);
        json!({ "id": id, "body": body, "to": { "session": session }, "data": { "buttons": buttons } })
            .to_string()
    };
    chat.say("Hello").await;
    chat.until("the service has it", |page| lines(page) == [("own", "Hello", "sent")]).await;
    chat.world.push([answer("a-1", "Shall I <b>go</b> on?")]).await;
    chat.until("the answer", |page| lines(page).len() == 2).await;
    chat.chrome.driver().find(By::Css("li.theirs button")).await.unwrap().click().await.unwrap();
    let page = chat.until("what the button says", |page| lines(page).len() == 3).await;
    assert_eq!(lines(&page)[1], ("theirs", "Shall I <b>go</b> on?", ""));
    assert_eq!(
        (page["kept"]["lines"][2]["data"].to_string().as_str(), lines(&page)[2].1),
        (r#"{"yes":true}"#, "Yes")
    );
    assert!(chat.chrome.driver().browser_log().await.unwrap().is_empty());

    chat.bff.process.kill();
    chat.until("it says so", |page| !status(page).starts_with("Live")).await;
    chat.say("Are you there?").await;
    chat.until("it is kept", |page| lines(page).last() == Some(&("own", "Are you there?", "waiting"))).await;
    chat.world.push([answer("a-2", "I am back")]).await;
    chat.bff = replica(&chat.world, chat.bff.port(), &chat.origin).await;
    let said = [
        ("own", "Hello", "sent"),
        ("theirs", "Shall I <b>go</b> on?", ""),
        ("own", "Yes", "sent"),
        ("own", "Are you there?", "sent"),
        ("theirs", "I am back", ""),
    ];
    chat.until("all of it", |page| lines(page) == said).await;

    chat.load().await;
    chat.until("the same lines", |page| lines(page) == said).await;
    assert_eq!(chat.session().await, session);
    chat.world.push([answer("a-3", "Still here"), crate::world::entry("all")]).await;
    let page = chat.until("what comes after", |page| lines(page).len() == 7).await;
    assert_eq!(lines(&page)[5..], [("theirs", "Still here", ""), ("news", "t\nb", "")]);
}
