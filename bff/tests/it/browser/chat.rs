//! `examples/chat.html` as a visitor opens it, from another web server, with nothing built; and `examples/application.py`,
//! which answers it.

use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use carillon_auth::signature::WebhookSecrets;
use carillon_bff::now_ms;
use carillon_harness::{Process, eventually, free_port, need};
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
const APPLICATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/application.py");
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

/// The page in a browser, before a replica, over Redis, with the application behind it.
struct Chat {
    chrome: Chrome,
    bff: Bff,
    application: Process,
    world: World,
    ports: Ports,
    url: String,
    _turn: MutexGuard<'static, ()>,
}

/// Where all of them are, also when they are started again.
struct Ports {
    page: u16,
    bff: u16,
    application: u16,
}

impl Ports {
    async fn replica(&self, world: &World) -> Bff {
        let (origin, upstream) = (local(self.page), local(self.application));
        let own = ["--upstream-url", &upstream, "--webhook-secret", WEBHOOK, "--allow-anonymous-messages"];
        let args = [&["--allowed-origins", &origin][..], &own].concat();
        let bff = Bff::spawn_at("bff-1", (Ipv4Addr::LOCALHOST, self.bff).into(), &world.redis.url(), &args);
        bff.until_ready().await;
        bff
    }

    async fn application(&self) -> Process {
        need("python3", "python3");
        let (url, port) = (local(self.bff), self.application.to_string());
        let env = [("CARILLON_URL", &*url), ("PORT", &port), ("WEBHOOK_SECRET", WEBHOOK)];
        let process = Process::spawn("python3", &[APPLICATION], &env);
        let listens = async || TcpStream::connect((Ipv4Addr::LOCALHOST, self.application)).is_ok();
        eventually("the application listens", DEADLINE, listens).await;
        process
    }
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

impl Chat {
    async fn open() -> Self {
        let turn = TURN.lock().await;
        let world = World::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let ports =
            Ports { page: listener.local_addr().unwrap().port(), bff: free_port(), application: free_port() };
        let files = Router::new()
            .route("/chat.html", get(async || Html(PAGE)))
            .route("/favicon.ico", get(async || StatusCode::NO_CONTENT));
        TaskTracker::new().spawn(axum::serve(listener, files).into_future());
        let (bff, application) = (ports.replica(&world).await, ports.application().await);
        let url = format!("{}/chat.html?server={}", local(ports.page), bff.http(""));
        let chat = Self { chrome: Chrome::start().await, bff, application, world, ports, url, _turn: turn };
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

    /// Waits until these are the last lines.
    async fn until_said(&self, last: &[(&str, &str, &str)]) {
        self.until(&format!("{last:?}"), |page| lines(page).ends_with(last)).await;
    }

    async fn say(&self, text: &str) {
        let input = self.chrome.driver().find(By::Id("text")).await.unwrap();
        input.send_keys(text + Key::Enter).await.unwrap();
    }

    /// The id under which programs know the session of the page.
    async fn session(&self) -> String {
        let page = self.until("a session", |page| page["kept"]["session"].is_string()).await;
        let open = reqwest::Client::new().post(self.bff.http("/api/sessions"));
        let open = open.header("carillon-session", page["kept"]["session"].as_str().unwrap());
        let answer: Value = open.send().await.unwrap().json().await.unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }
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
    chat.say("<b>Hello</b>").await;
    chat.until_said(&[("own", "<b>Hello</b>", "sent"), ("theirs", "You said: <b>Hello</b>", "")]).await;
    chat.chrome.driver().find(By::Css("li.theirs button")).await.unwrap().click().await.unwrap();
    chat.until_said(&[("own", "Say that again", "sent"), ("theirs", "You said: Say that again", "")]).await;
    let page = chat.until("four lines", |page| lines(page).len() == 4).await;
    assert_eq!(page["kept"]["lines"][2]["data"], json!({ "again": "<b>Hello</b>" }));
    assert!(chat.chrome.driver().browser_log().await.unwrap().is_empty());

    // The replica ends, with both ends in the middle of something.
    chat.bff.process.kill();
    chat.until("it says so", |page| !status(page).starts_with("Live")).await;
    chat.say("Are you there?").await;
    chat.until_said(&[("own", "Are you there?", "waiting")]).await;
    let pushed = json!({ "id": "p-1", "body": "From elsewhere", "to": { "session": session } });
    chat.world.push([pushed.to_string()]).await;
    chat.bff = chat.ports.replica(&chat.world).await;
    let missed = [
        ("own", "Are you there?", "sent"),
        ("theirs", "From elsewhere", ""),
        ("theirs", "You said: Are you there?", ""),
    ];
    chat.until_said(&missed).await;

    // The application ends, and the page is reloaded in the meantime.
    chat.application.kill();
    chat.say("And you?").await;
    chat.until_said(&[("own", "And you?", "sent")]).await;
    chat.load().await;
    chat.application = chat.ports.application().await;
    chat.until_said(
        &[&missed[..], &[("own", "And you?", "sent"), ("theirs", "You said: And you?", "")]].concat(),
    )
    .await;
    assert_eq!(chat.session().await, session);
    chat.world.push([crate::world::entry("all")]).await;
    chat.until_said(&[("news", "t\nb", "")]).await;
    chat.until("each of them once", |page| lines(page).len() == 10).await;

    // A session that is not valid any more is replaced by another.
    let spoil =
        "const [key] = Object.keys(localStorage); localStorage[key] = JSON.stringify({ session: 'x' });";
    chat.chrome.driver().execute(spoil, Vec::new()).await.unwrap();
    chat.load().await;
    assert_ne!(chat.session().await, session);
    chat.say("Hello again").await;
    chat.until_said(&[("own", "Hello again", "sent"), ("theirs", "You said: Hello again", "")]).await;
}

#[tokio::test]
async fn the_application_accepts_only_recent_signatures_with_its_secret() {
    let ports = Ports { page: 0, bff: free_port(), application: free_port() };
    let _application = ports.application().await;
    let post = async |secret: &str, at_ms: u64, signed: &str, body: &str| {
        let headers =
            secret.parse::<WebhookSecrets>().unwrap().sign("msg_1", at_ms, signed.as_bytes()).unwrap();
        let post = reqwest::Client::new().post(local(ports.application)).body(body.to_owned());
        let post = headers.into_iter().fold(post, |post, (name, value)| post.header(name, value));
        post.send().await.unwrap().status().as_u16()
    };
    let (now_ms, body) = (now_ms(), r#"{"id":"1","session":"s","message":"m"}"#);
    // It would answer, and no client reads the response: that is not a refusal.
    assert_eq!(post(WEBHOOK, now_ms, body, body).await, 502);
    let foreign = "whsec_Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
    assert_eq!(post(&format!("{foreign},{WEBHOOK}"), now_ms, body, body).await, 502);
    assert_eq!(post(foreign, now_ms, body, body).await, 401);
    assert_eq!(post(WEBHOOK, now_ms, "{}", body).await, 401);
    assert_eq!(post(WEBHOOK, now_ms - 330_000, body, body).await, 401);
    assert_eq!(post(WEBHOOK, now_ms + 330_000, body, body).await, 401);
    assert_eq!(reqwest::Client::new().post(local(ports.application)).send().await.unwrap().status(), 401);
}
