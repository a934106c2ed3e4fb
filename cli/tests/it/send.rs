use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use carillon_harness::{Process, free_port};

use crate::running::{CARILLON, DEADLINE, Demo, carillon, one_line};
use crate::server::Server;

/// The id that a successful `carillon send` prints.
async fn id(mut process: Process) -> String {
    assert_eq!(process.wait_exit(DEADLINE).await, 0, "{:?}", process.stderr());
    let lines = process.stdout();
    assert_eq!(lines.len(), 1);
    lines[0].clone()
}

async fn history(demo: &Demo) -> Vec<serde_json::Value> {
    let text = reqwest::get(format!("{}/api/notifications?limit=1000", demo.url))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let page: serde_json::Value = serde_json::from_str(&text).unwrap();
    page["items"].as_array().unwrap().iter().map(|item| item["notification"].clone()).collect()
}

#[tokio::test]
async fn prints_the_id_of_a_notification_for_everyone() {
    let demo = Demo::start().await;
    let url = demo.url.as_str();
    let sent =
        id(carillon(&["send", "--url", url, "--severity", "warning", "--title", "Look", "at this"])).await;
    carillon_harness::eventually("it is in history", DEADLINE, async || {
        history(&demo).await.iter().any(|one| {
            one["id"] == sent
                && one["title"] == "Look"
                && one["body"] == "at this"
                && one["severity"] == "warning"
        })
    })
    .await;
}

#[tokio::test]
async fn the_same_id_is_shown_once() {
    let demo = Demo::start().await;
    for _ in 0..2 {
        assert_eq!(id(carillon(&["send", "--url", &demo.url, "--id", "given", "twice"])).await, "given");
    }
    id(carillon(&["send", "--url", &demo.url, "--id", "last", "after both"])).await;
    carillon_harness::eventually("all are taken", DEADLINE, async || {
        history(&demo).await.iter().any(|one| one["id"] == "last")
    })
    .await;
    assert_eq!(history(&demo).await.iter().filter(|one| one["id"] == "given").count(), 1);
}

#[tokio::test]
async fn an_invalid_notification_is_refused_before_it_is_sent() {
    let long = "x".repeat(4_001);
    let key = "k".repeat(129);
    for (args, words) in [
        (&["send", &long][..], "body: at most 4000 characters, this has 4001"),
        (&["send", ""], "body: a notification needs a title or a body"),
        (&["send", "x", "--id", ""], "id: empty: omit it or use 1 to 128 bytes"),
        (&["send", "x", "--id", &key], "id: at most 128 bytes, this has 129"),
        (&["send", "x", "--title", &"t".repeat(201)], "title: at most 200 characters, this has 201"),
    ] {
        assert_eq!(one_line(carillon(args)).await, words);
    }
    // The option parser refuses invalid values itself.
    for (option, value) in [("--severity", "loud"), ("--to", "nobody"), ("--url", "ftp://x")] {
        assert_eq!(carillon(&["send", "x", option, value]).wait_exit(DEADLINE).await, 2, "{option}");
    }
}

#[tokio::test]
async fn names_an_address_that_does_not_answer() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let line = one_line(carillon(&["send", "hello", "--url", &url])).await;
    assert!(line.starts_with(&format!("cannot connect to {url} (")), "{line}");
    assert!(
        line.contains("start `cargo demo`, or name the address of Carillon with --url or CARILLON_URL"),
        "{line}"
    );
}

/// A server that answers each post with the next of these responses, and keeps the posted bodies.
async fn answering(answers: Vec<Response>) -> (Server, Arc<Mutex<Vec<String>>>) {
    let posted = Arc::new(Mutex::new(Vec::new()));
    let (kept, answers) = (Arc::clone(&posted), Arc::new(Mutex::new(answers.into_iter())));
    let answer = post(async move |body: String| {
        kept.lock().unwrap().push(body);
        answers.lock().unwrap().next().expect("one answer more")
    });
    (Server::start(Router::new().route("/api/notifications", answer)).await, posted)
}

fn busy() -> Response {
    let problem = r#"{"status":503,"title":"Redis unavailable","detail":"try again shortly"}"#;
    (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], problem).into_response()
}

#[tokio::test]
async fn tries_again_with_the_same_id() {
    let accepted = (StatusCode::ACCEPTED, r#"{"id":"accepted"}"#).into_response();
    let (server, posted) = answering(vec![busy(), StatusCode::BAD_GATEWAY.into_response(), accepted]).await;
    let mut process = carillon(&["send", "hello", "--url", &server.url()]);
    process.wait_line("Redis unavailable: try again shortly; again in ").await;
    process.wait_line("answers 502 Bad Gateway: is that a Carillon?; again in ").await;
    assert_eq!(id(process).await, "accepted");
    let posted = posted.lock().unwrap();
    assert_eq!(posted.len(), 3);
    assert!(posted[0].contains(r#""id":""#) && posted.iter().all(|body| *body == posted[0]), "{posted:?}");
}

#[tokio::test]
async fn gives_up_after_some_tries() {
    let (server, posted) = answering((0..4).map(|_| busy()).collect()).await;
    let mut process = carillon(&["send", "hello", "--url", &server.url()]);
    assert_eq!(process.wait_exit(DEADLINE).await, 1);
    assert_eq!(posted.lock().unwrap().len(), 4);
    let last = process.stderr().pop().unwrap();
    assert_eq!(last, "carillon: given up after 4 tries: Redis unavailable: try again shortly");
}

#[tokio::test]
async fn a_refusal_names_each_field() {
    let problem = r#"{"status":400,"title":"invalid notification","errors":[{"field":"to","detail":"not here"},{"field":"body","detail":"at most 9 characters","limit":9}]}"#;
    let (server, _) = answering(vec![(StatusCode::BAD_REQUEST, problem).into_response()]).await;
    let line = one_line(carillon(&["send", "hello", "--url", &server.url()])).await;
    assert_eq!(line, "invalid notification; to: not here; body: at most 9 characters");

    let (server, _) = answering(vec![(StatusCode::OK, "<html>").into_response()]).await;
    let line = one_line(carillon(&["send", "hello", "--url", &server.url()])).await;
    assert_eq!(line, format!("{} answers 200 OK: is that a Carillon?", server.url()));
}

#[tokio::test]
async fn sends_its_key() {
    let answer = post(async |headers: HeaderMap| match headers.get("authorization") {
        Some(key) if key == "Bearer secret" => (StatusCode::ACCEPTED, r#"{"id":"accepted"}"#),
        _ => (StatusCode::UNAUTHORIZED, r#"{"status":401,"title":"publishing requires a key"}"#),
    });
    let server = Server::start(Router::new().route("/api/notifications", answer)).await;
    let url = server.url();
    let send =
        |key| Process::spawn(CARILLON, &["send", "hello"], &[("API_KEY", key), ("CARILLON_URL", &url)]);
    assert_eq!(id(send("secret")).await, "accepted");
    for key in ["wrong", ""] {
        assert_eq!(one_line(send(key)).await, "publishing requires a key");
    }
}
