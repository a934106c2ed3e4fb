use std::collections::HashSet;

use carillon_harness::{DialOptions, Socket};
use reqwest::header::{COOKIE, SET_COOKIE};

use crate::running::Demo;

const NAME: &str = "REALTIMESERVERID";

/// Returns the cookie that a response to this cookie sets.
async fn set_for(demo: &Demo, cookie: Option<&str>) -> Option<String> {
    let mut request = reqwest::Client::new().get(format!("{}/api/notifications?limit=1", demo.url));
    if let Some(cookie) = cookie {
        request = request.header(COOKIE, cookie);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.headers().get(SET_COOKIE).map(|set| set.to_str().unwrap().to_owned())
}

/// Returns the replica that welcomes a reader with this cookie.
async fn welcomed(demo: &Demo, cookie: &str) -> String {
    let headers = vec![("Cookie".to_owned(), cookie.to_owned())];
    let options = DialOptions { headers, ..DialOptions::default() };
    let mut socket = Socket::open(&demo.socket(), &options).await.unwrap();
    let welcome: serde_json::Value = serde_json::from_str(&socket.text().await).unwrap();
    welcome["replica"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn browsers_without_a_cookie_take_turns() {
    let demo = Demo::start().await;
    let mut given = HashSet::new();
    for _ in 0..3 {
        given.insert(set_for(&demo, None).await.unwrap());
    }
    let all = [1, 2, 3].map(|number| format!("{NAME}=bff-{number}; Path=/; HttpOnly; SameSite=Lax"));
    assert_eq!(given, HashSet::from(all));
}

#[tokio::test]
async fn a_browser_stays_on_the_replica_of_its_cookie() {
    let demo = Demo::start().await;
    for replica in ["bff-1", "bff-2", "bff-3"] {
        for cookie in [format!("{NAME}={replica}"), format!("theme=dark; {NAME}={replica}; x=y")] {
            assert_eq!(set_for(&demo, Some(&cookie)).await, None, "it has one");
            for _ in 0..3 {
                assert_eq!(welcomed(&demo, &cookie).await, replica);
            }
        }
    }
}

#[tokio::test]
async fn a_cookie_of_elsewhere_is_replaced() {
    let demo = Demo::start().await;
    for cookie in ["REALTIMESERVERID=bff-9", "REALTIMESERVERID=", "another=bff-1"] {
        assert!(set_for(&demo, Some(cookie)).await.unwrap().starts_with("REALTIMESERVERID=bff-"), "{cookie}");
    }
    welcomed(&demo, "REALTIMESERVERID=bff-9").await;
}

#[tokio::test]
async fn events_come_through_the_door_too() {
    let demo = Demo::start().await;
    let mut response = reqwest::get(format!("{}/sse", demo.url)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !text.contains("event: notification") && !text.contains("event:notification") {
        let chunk = response.chunk().await.unwrap().expect("a stream without an end");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
}

#[tokio::test]
async fn what_is_named_in_a_path_arrives_whole() {
    let demo = Demo::start().await;
    let client = reqwest::Client::new();
    let at = |path: &str| format!("{}{path}", demo.url);
    let opened: serde_json::Value =
        client.post(at("/api/sessions")).send().await.unwrap().json().await.unwrap();
    let session = opened["session"].as_str().unwrap();
    let job = serde_json::json!({ "id": "j", "steps": 1 });
    let begin = client.post(at("/api/jobs")).header("carillon-session", session).json(&job);
    assert_eq!(begin.send().await.unwrap().status(), 202);
    let one = client.get(at("/api/jobs/j")).header("carillon-session", session).send().await.unwrap();
    assert_eq!(one.status(), 200);
    for page in ["/docs", "/docs/swagger-ui.css", "/openapi.json", "/asyncapi.json"] {
        assert_eq!(client.get(at(page)).send().await.unwrap().status(), 200, "{page}");
    }
    assert_eq!(client.get(at("/docsother")).send().await.unwrap().status(), 404);
}
