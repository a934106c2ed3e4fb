use std::process::{Command, Stdio};

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade};
use axum::routing::any;
use carillon_harness::{Process, Proxy, eventually, free_port};

use crate::running::{CARILLON, DEADLINE, Demo, carillon, one_line};
use crate::server::Server;

/// A connected tail, which receives everything that is sent later.
async fn connected(url: &str, args: &[&str]) -> Process {
    let mut tail = carillon(&[&["tail", "--url", url], args].concat());
    tail.wait_line("-- connected to bff-").await;
    tail
}

async fn send(demo: &Demo, text: &str) {
    assert_eq!(demo.post(&serde_json::json!({ "body": text }).to_string()).await, 202);
}

/// Returns the lines with this text.
fn about<'a>(lines: &'a [String], text: &str) -> Vec<&'a String> {
    lines.iter().filter(|line| line.contains(text)).collect()
}

#[tokio::test]
async fn shows_what_is_sent() {
    let demo = Demo::start().await;
    let mut tail = connected(&demo.url, &[]).await;
    let sent =
        carillon(&["send", "--url", &demo.url, "--severity", "error", "--title", "Fire", "in the kitchen"]);
    let line = tail.wait_line("Fire").await;
    assert!(line.contains("  error    Fire: in the kitchen  claimed by bff-"), "{line}");
    assert!(!line.contains('\u{1b}'), "no colours but on a terminal");
    drop(sent);
    tail.signal("INT");
    assert_eq!(tail.wait_exit(DEADLINE).await, 0);
}

#[tokio::test]
async fn resumes_after_a_cut_with_nothing_missed_or_doubled() {
    let demo = Demo::start().await;
    let proxy = Proxy::start(demo.url.trim_start_matches("http://").parse().unwrap()).await;
    let mut tail = connected(&format!("http://{}", proxy.addr()), &[]).await;
    send(&demo, "before the cut").await;
    tail.wait_line("before the cut").await;
    proxy.refuse();
    proxy.cut();
    tail.wait_line("; again in ").await;
    send(&demo, "while away").await;
    tail.wait_line("cannot connect to http://").await;
    proxy.pass();
    tail.wait_line("nothing was missed").await;
    send(&demo, "after it").await;
    tail.wait_line("after it").await;
    let lines = tail.stdout();
    for text in ["before the cut", "while away", "after it"] {
        assert_eq!(about(&lines, text).len(), 1, "{lines:#?}");
    }
}

#[tokio::test]
async fn comes_back_to_its_replica() {
    let demo = Demo::start().await;
    let proxy = Proxy::start(demo.url.trim_start_matches("http://").parse().unwrap()).await;
    let tail = connected(&format!("http://{}", proxy.addr()), &[]).await;
    for cuts in 1..=3 {
        proxy.cut();
        eventually("it is back", DEADLINE, async || about(&tail.stderr(), "connected to").len() == cuts + 1)
            .await;
    }
    let lines = tail.stderr();
    let first = about(&lines, "connected to")[0];
    for back in &about(&lines, "connected to")[1..] {
        assert_eq!(**back, format!("{first}, nothing was missed"));
    }
}

#[tokio::test]
async fn waits_for_a_server_that_is_not_there_yet() {
    let port = free_port().to_string();
    let mut tail = carillon(&["tail", "--url", &format!("http://127.0.0.1:{port}"), "--count", "1"]);
    tail.wait_line("cannot connect to http://127.0.0.1:").await;
    let _demo = Demo::start_with(&["--port", &port], &[]).await;
    assert_eq!(tail.wait_exit(DEADLINE).await, 0);
    assert_eq!(tail.stdout().len(), 1);
}

#[tokio::test]
async fn ends_after_a_count_and_goes_on_from_its_cursor() {
    let demo = Demo::start().await;
    let mut tail = connected(&demo.url, &["--count", "2"]).await;
    assert_eq!(tail.wait_exit(DEADLINE).await, 0);
    assert_eq!(tail.stdout().len(), 2);
    let cursor = tail.wait_line("go on with --since ").await.split_off("-- go on with --since ".len());

    send(&demo, "nobody reads this now").await;
    let mut tail = connected(&demo.url, &["--since", &cursor]).await;
    tail.wait_line("nobody reads this now").await;
    tail.wait_line("nothing was missed").await;
    assert_eq!(about(&tail.stdout(), &cursor), Vec::<&String>::new());

    let mut tail = connected(&demo.url, &["--since", "another.1-0"]).await;
    tail.wait_line("gap: history has a new epoch").await;
    tail.wait_line("nobody reads this now").await;
}

#[tokio::test]
async fn prints_each_frame_on_one_safe_line() {
    let demo = Demo::start().await;
    let mut tail = connected(&demo.url, &["--json"]).await;
    let written_wide = "{\n\t\"body\": \"wide\",\n\t\"data\": [1.10, \"\u{9b}31m\"]\n}";
    assert_eq!(demo.post(written_wide).await, 202);
    let line = tail.wait_line("wide").await;
    assert!(line.contains(r#""data": [1.10, "\u009b31m"]"#), "{line}");
    for line in tail.stdout() {
        let frame: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(frame["type"].is_string());
        assert!(!line.contains(char::is_control));
    }
}

#[tokio::test]
async fn characters_that_act_on_a_terminal_are_escaped() {
    let demo = Demo::start().await;
    let mut tail = connected(&demo.url, &[]).await;
    send(&demo, "\u{1b}]0;owned\u{7}\r\nsecond line\u{9b}").await;
    let line = tail.wait_line("owned").await;
    assert!(line.contains(r"\u{1b}]0;owned\u{7}\r\nsecond line\u{9b}  claimed by"), "{line}");
}

#[tokio::test]
async fn stops_after_a_final_close_code() {
    let close = any(async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            let frame = CloseFrame { code: 4501, reason: "not\u{1b} you".into() };
            let _ = socket.send(Message::Close(Some(frame))).await;
            while let Some(Ok(_)) = socket.recv().await {}
        })
    });
    let server = Server::start(Router::new().route("/ws", close)).await;
    let line = one_line(carillon(&["tail", "--url", &server.url()])).await;
    assert_eq!(
        line,
        format!(r"{} closed with 4501: not\u{{1b}} you, and does not accept a reconnect", server.url())
    );
}

#[tokio::test]
async fn a_refused_request_is_one_line() {
    let demo = Demo::start().await;
    let line = one_line(carillon(&["tail", "--url", &demo.url, "--topic", "closed & co"])).await;
    assert!(line.starts_with(&format!("{} refuses: topic not allowed: ", demo.url)), "{line}");

    let server = Server::start(Router::new()).await;
    let line = one_line(carillon(&["tail", "--url", &server.url()])).await;
    assert_eq!(line, format!("{} refuses: it answers 404 Not Found", server.url()));
}

#[tokio::test]
async fn ends_quietly_when_its_output_is_closed() {
    let demo = Demo::start().await;
    let mut tail = Command::new(CARILLON)
        .args(["tail", "--url", &demo.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(tail.stdout.take());
    eventually("it ends", DEADLINE, async || tail.try_wait().unwrap().is_some()).await;
    assert!(tail.wait().unwrap().success());
}

/// A token of the demo.
async fn token(demo: &Demo, user: &str) -> String {
    let url = format!("{}/api/demo/token", demo.url);
    let answer = reqwest::Client::new().post(url).json(&serde_json::json!({ "user": user })).send().await;
    let body: serde_json::Value = answer.unwrap().json().await.unwrap();
    body["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn reads_as_a_user_and_acknowledges() {
    let demo = Demo::start().await;
    let (ann, ben) = (token(&demo, "ann").await, token(&demo, "ben").await);
    let mut sender = connected(&demo.url, &["--token", &ann]).await;
    let mut reader = carillon(&["tail", "--url", &demo.url, "--token", &ben]);
    reader.wait_line(" as ben").await;
    let sent = carillon(&["send", "--url", &demo.url, "--token", &ann, "--to", "user:ben", "hello"]);
    let line = reader.wait_line("hello").await;
    assert!(line.contains("  from ann, claimed by bff-"), "{line}");
    sender.wait_line(r#""status":"delivered""#).await;
    drop(sent);
}

#[tokio::test]
async fn reads_as_a_session_that_can_be_resumed() {
    let demo = Demo::start().await;
    let mut first = carillon(&["tail", "--url", &demo.url, "--session", "new"]);
    let line = first.wait_line("-- go on with --session ").await;
    let session = line.rsplit(' ').next().unwrap().to_owned();
    drop(first);
    let mut second = connected(&demo.url, &["--session", &session]).await;
    let job =
        reqwest::Client::new().post(format!("{}/api/jobs", demo.url)).header("carillon-session", &session);
    let answer = job.json(&serde_json::json!({ "name": "Report", "steps": 1 })).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    second.wait_line("Report").await;
    assert!(!second.stderr().iter().any(|line| line.contains("--session")), "it is the same session");
}

#[tokio::test]
async fn a_token_that_cannot_be_sent_is_one_line_that_does_not_show_it() {
    let line = one_line(carillon(&["tail", "--token", "first\nsecond"])).await;
    assert!(line.starts_with("--token or CARILLON_TOKEN: a line of visible ASCII is needed"), "{line}");
    assert!(!line.contains("second"), "{line}");
}

/// The number of senders: each may send a hundred in a row.
const SENDERS: usize = 4;
const EACH: usize = 80;

/// Every sender sends as many messages to ben as it may, all at the same time.
async fn flood(demo: &Demo, word: &str) {
    let senders = (0..SENDERS).map(async |sender| {
        let token = token(demo, &format!("{word}-{sender}")).await;
        for n in 0..EACH {
            let body = serde_json::json!({
                "id": format!("{word}-{n}"), "to": { "user": "ben" }, "body": format!("{word} {sender}-{n}."),
            });
            let request = reqwest::Client::new().post(format!("{}/api/notifications", demo.url));
            let answer = request.bearer_auth(&token).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), 202);
        }
    });
    futures_util::future::join_all(senders).await;
}

#[tokio::test]
async fn acknowledges_hundreds_of_messages_within_its_rate_limit() {
    let demo = Demo::start().await;
    let ben = token(&demo, "ben").await;
    let get = async |path: &str| -> serde_json::Value {
        let request = reqwest::Client::new().get(format!("{}{path}", demo.url));
        request.bearer_auth(&ben).send().await.unwrap().json().await.unwrap()
    };
    let start = get("/api/notifications").await["next"].as_str().unwrap().to_owned();
    flood(&demo, "missed").await;
    let mut tail = connected(&demo.url, &["--token", &ben, "--since", &start]).await;
    let printed = |tail: &Process, word: &str| about(&tail.stdout(), word).len();
    eventually("what was missed", DEADLINE, async || printed(&tail, "missed ") >= SENDERS * EACH).await;
    flood(&demo, "live").await;
    eventually("what is live", DEADLINE, async || printed(&tail, "live ") >= SENDERS * EACH).await;
    for (word, sender) in [("missed", 0), ("live", SENDERS - 1)] {
        let last = format!("/api/notifications/{word}-{}?from={word}-{sender}", EACH - 1);
        let delivered = async || get(&last).await["status"] == "delivered";
        eventually("an acknowledgement", DEADLINE, delivered).await;
    }
    tail.signal("INT");
    assert_eq!(tail.wait_exit(DEADLINE).await, 0, "{:?}", tail.stderr());
    assert_eq!((printed(&tail, "missed "), printed(&tail, "live ")), (SENDERS * EACH, SENDERS * EACH));
    let lost = tail.stderr().into_iter().filter(|line| line.contains("again in ")).count();
    assert_eq!(lost, 0, "the service never closed it: {:?}", tail.stderr());
}
