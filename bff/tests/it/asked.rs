//! Access to the data of users, where any client may publish.

use std::sync::Arc;

use carillon_auth::identity::IdentityOptions;
use carillon_bff::{ApiKeys, Publishing, Settings, now_ms};
use carillon_broker::Broker;
use carillon_harness::{Reader, eventually};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::people::{KEY, PEOPLE, SECRET, people, signed_in, token, token_with};
use crate::world::{Bff, DEADLINE, World, serve, settings};

fn bearer(request: RequestBuilder, bearer: &str) -> RequestBuilder {
    if bearer.is_empty() { request } else { request.bearer_auth(bearer) }
}

async fn ask(bff: &Bff, method: Method, path: &str, by: &str, body: Option<&Value>) -> (u16, String) {
    let request = bearer(Client::new().request(method, bff.http(path)), by);
    let answer = body.into_iter().fold(request, RequestBuilder::json).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn get(bff: &Bff, path: &str, by: &str) -> (u16, String) {
    ask(bff, Method::GET, path, by, None).await
}

async fn post(bff: &Bff, path: &str, by: &str, body: Value) -> u16 {
    ask(bff, Method::POST, path, by, Some(&body)).await.0
}

async fn started(world: &World, options: &[&str]) -> Bff {
    let bff = Bff::spawn("bff-1", &world.redis.url(), options);
    bff.until_ready().await;
    bff
}

const MESSAGE: &str = "/api/notifications/m?from=ann";
const TRACE: &str = "/api/notifications/m/trace?from=ann";
const PRESENCE: &str = "/api/presence/ann";
const STATE: &str = "/api/users/ann/state";
const PUBLISH: &str = "/api/notifications";
const REVOKE: &str = "/api/revocations";

#[tokio::test]
async fn open_publishing_gives_no_access_to_data_of_users() {
    let world = World::new();
    let bff = started(&world, &["--jwt-secret", SECRET, "--allow-publish", "--people-send"]).await;
    let message = json!({ "id": "m", "to": { "user": "ben" }, "body": "b" });
    assert_eq!(post(&bff, PUBLISH, &token("ann"), message).await, 202);
    assert_eq!(post(&bff, PUBLISH, "", json!({ "body": "for all" })).await, 202);
    for path in [MESSAGE, TRACE, PRESENCE, STATE] {
        let (status, body) = get(&bff, path, "").await;
        assert_eq!(status, 401, "{path}: {body}");
    }
    assert_eq!(post(&bff, REVOKE, "", json!({ "user": "ann" })).await, 401);
    assert_eq!(post(&bff, REVOKE, &token("ann"), json!({ "user": "ben" })).await, 401);
    for path in [MESSAGE, TRACE, STATE] {
        assert_eq!(get(&bff, path, &token("ann")).await.0, 200, "{path}");
    }
    // Without users who sign in, there is no data of users.
    let open = started(&world, &[]).await;
    for path in [MESSAGE, TRACE, PRESENCE, STATE] {
        assert_eq!(get(&open, path, "").await.0, 200, "{path}");
    }
    assert_eq!(post(&open, REVOKE, "", json!({ "token": "x" })).await, 204);
}

#[tokio::test]
async fn a_loopback_address_is_open_only_where_users_cannot_sign_in() {
    let world = World::new();
    let bff = started(&world, &["--jwt-secret", SECRET]).await;
    let all = json!({ "body": "for all" });
    assert_eq!(post(&bff, PUBLISH, "", all.clone()).await, 401);
    assert_eq!(ask(&bff, Method::PUT, STATE, "", Some(&json!({}))).await.0, 401);
    let open = started(&world, &[]).await;
    assert_eq!(post(&open, PUBLISH, "", all).await, 202);
}

#[tokio::test]
async fn local_access_is_refused_under_another_name_or_through_a_proxy() {
    let world = World::new();
    let open = started(&world, &[]).await;
    let body = json!({ "body": "b" });
    let all = [
        (Method::POST, PUBLISH, Some(&body)),
        (Method::POST, "/api/users/ann/raw", Some(&body)),
        (
            Method::POST,
            "/twirp/notify.NotifyService/Publish",
            Some(&json!({"userID": "ann", "message": "m"})),
        ),
        (Method::PUT, STATE, Some(&json!({ "role": "admin" }))),
        (Method::GET, STATE, None),
        (Method::GET, PRESENCE, None),
        (Method::GET, MESSAGE, None),
        (Method::POST, REVOKE, Some(&json!({ "user": "ann" }))),
    ];
    for (method, path, body) in all {
        let asked = async |headers: &[(&str, &str)]| {
            let request = Client::new().request(method.clone(), open.http(path));
            let request =
                headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let request = body.into_iter().fold(request, RequestBuilder::json);
            request.send().await.unwrap().status().as_u16()
        };
        let evil = [("host", "evil.example:8470"), ("origin", "http://evil.example:8470")];
        assert_eq!(asked(&evil).await, 401, "{method} {path}: a page whose name was led here");
        assert_eq!(asked(&evil[..1]).await, 401, "{method} {path}: and without an origin");
        for header in [("x-forwarded-for", "192.0.2.1"), ("via", "1.1 proxy"), ("x-real-ip", "192.0.2.1")] {
            assert_eq!(asked(&[header]).await, 401, "{method} {path}: {header:?}");
        }
        let near = asked(&[("host", "localhost")]).await;
        assert!((200..300).contains(&near) || near == 404, "{method} {path}: {near}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_neither_publishes_nor_sets_a_state() {
    let world = World::new();
    let open = started(&world, &[]).await;
    for (method, path) in [(Method::POST, PUBLISH), (Method::PUT, STATE)] {
        let request = || Client::new().request(method.clone(), open.http(path)).json(&json!({ "body": "b" }));
        let foreign = request().header("origin", "https://elsewhere.example").send().await.unwrap();
        assert_eq!(foreign.status(), 403, "{method} {path}");
        assert!(request().header("origin", open.http("")).send().await.unwrap().status().is_success());
    }
}

#[tokio::test]
async fn open_publishing_gives_no_other_right_even_without_sign_in() {
    let world = World::new();
    let mut bff = started(&world, &["--allow-publish"]).await;
    bff.process.wait_line("any client that reaches this replica may publish").await;
    let forwarded = Client::new().post(bff.http(PUBLISH)).header("x-forwarded-for", "192.0.2.1");
    let status = forwarded.json(&json!({ "body": "for all" })).send().await.unwrap().status();
    assert_eq!(status, 202);
    for path in [MESSAGE, TRACE, PRESENCE, STATE] {
        assert_eq!(get(&bff, path, "").await.0, 401, "{path}");
    }
    assert_eq!(ask(&bff, Method::PUT, STATE, "", Some(&json!({}))).await.0, 401);
    assert_eq!(post(&bff, REVOKE, "", json!({ "user": "ann" })).await, 401);
    let mut open = started(&world, &[]).await;
    open.process.wait_line("every program on this machine may publish").await;
}

#[tokio::test]
async fn a_replica_with_a_trusted_proxy_needs_a_key() {
    let world = World::new();
    for proxy in [["--trusted-proxies", "10.0.0.0/8"], ["--trusted-proxy-hops", "1"]] {
        let bff = started(&world, &proxy).await;
        // nginx from 1.29.7 on forwards requests like these: with its own Host, and no other header.
        assert_eq!(post(&bff, PUBLISH, "", json!({ "body": "for all" })).await, 401);
        assert_eq!(post(&bff, REVOKE, "", json!({ "user": "ann" })).await, 401);
        assert_eq!(get(&bff, STATE, "").await.0, 401);
    }
}

#[tokio::test]
async fn a_revocation_is_json_and_refused_from_a_foreign_page() {
    let world = World::new();
    let bff = started(&world, &PEOPLE).await;
    let ask = || Client::new().post(bff.http(REVOKE)).bearer_auth(KEY).body(r#"{"token":"x"}"#);
    let status = async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(ask()).await, 415);
    let json = || ask().header("content-type", "application/json");
    assert_eq!(status(json().header("origin", "https://elsewhere.example")).await, 403);
    assert_eq!(status(json()).await, 204);
}

#[tokio::test]
async fn a_user_sends_to_topics_of_the_token_and_not_to_public_ones() {
    let world = World::new();
    let bff = started(&world, &[&PEOPLE[..], &["--public-topics", "news"]].concat()).await;
    let editor = token_with(SECRET, json!({ "user_id": "eda", "topics": ["news"] }));
    let news = || json!({ "to": { "topic": "news" }, "body": "b" });
    assert_eq!(post(&bff, PUBLISH, &token("ann"), news()).await, 403);
    assert_eq!(post(&bff, PUBLISH, &editor, news()).await, 202);
    assert_eq!(post(&bff, PUBLISH, KEY, news()).await, 202);
}

#[tokio::test]
async fn a_token_sends_to_the_recipients_of_its_claim_only() {
    let world = World::new();
    let bff = started(&world, &["--jwt-secret", SECRET]).await;
    let body = |to: Value| json!({ "to": to, "title": "Your account was locked" });
    let reader = token_with(SECRET, json!({ "user_id": "ann", "topics": ["news", "team.*"] }));
    let sender = token_with(SECRET, json!({ "user_id": "ann", "send": ["user:b*", "topic:team.a"] }));
    let nobody = token_with(SECRET, json!({ "user_id": "ann", "send": [], "topics": ["news"] }));
    let (ben, cem) = (json!({ "user": "ben" }), json!({ "user": "cem" }));
    let (news, team) = (json!({ "topic": "news" }), json!({ "topic": "team.a" }));
    for (to, may) in [(&ben, true), (&cem, false), (&news, false), (&team, true)] {
        for (token, status) in [(&reader, 403), (&nobody, 403), (&sender, if may { 202 } else { 403 })] {
            assert_eq!(post(&bff, PUBLISH, token, body(to.clone())).await, status, "{to} {token}");
        }
    }
    let (_, problem) = ask(&bff, Method::POST, PUBLISH, &reader, Some(&body(ben.clone()))).await;
    assert!(problem.contains("claim `send`") && problem.contains("PEOPLE_SEND"), "{problem}");
    // No user sends to everyone, whatever the token allows, and an invalid claim is refused.
    assert_eq!(post(&bff, PUBLISH, &sender, json!({ "body": "b" })).await, 400);
    for wrong in [json!("user:*"), json!(["everyone"]), json!([1])] {
        let token = token_with(SECRET, json!({ "user_id": "ann", "send": wrong }));
        assert_eq!(post(&bff, PUBLISH, &token, body(ben.clone())).await, 401, "{wrong}");
    }
    let lively = started(&world, &["--jwt-secret", SECRET, "--people-send"]).await;
    for (to, status) in [(&cem, 202), (&team, 202), (&news, 202), (&json!({ "topic": "other" }), 403)] {
        assert_eq!(post(&lively, PUBLISH, &reader, body(to.clone())).await, status, "{to}");
    }
    assert_eq!(post(&lively, PUBLISH, &nobody, body(ben)).await, 403, "what a token says goes before");
}

#[tokio::test]
async fn a_star_does_not_match_presence_topics() {
    let world = World::new();
    let bff = started(&world, &["--jwt-secret", SECRET, "--public-topics", "*"]).await;
    let star = token_with(SECRET, json!({ "user_id": "ann", "topics": ["*"] }));
    assert_eq!((get(&bff, PRESENCE, "").await.0, get(&bff, PRESENCE, &star).await.0), (401, 403));
    let named = token_with(SECRET, json!({ "user_id": "ann", "topics": ["presence:*"] }));
    assert_eq!(get(&bff, PRESENCE, &named).await.0, 200);
}

/// Returns the trace of the message, as this client sees it.
async fn trace(bff: &Bff, by: &str) -> Value {
    let (status, body) = get(bff, TRACE, by).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn step<'a>(trace: &'a Value, name: &str) -> Option<&'a Value> {
    trace["steps"].as_array().unwrap().iter().find(|step| step["step"] == name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_hides_connections_and_presence_without_the_right() {
    let world = World::new();
    let bff = &people(&world, 1).await[0];
    let friend = token_with(SECRET, json!({ "user_id": "ann", "topics": ["presence:b*"] }));
    let message = json!({ "id": "m", "to": { "user": "ben" }, "body": "b" });
    assert_eq!(post(bff, PUBLISH, &token("ann"), message).await, 202);
    let is_routed = async || step(&trace(bff, KEY).await, "routed").is_some();
    eventually("it is routed", DEADLINE, is_routed).await;
    for (by, knows) in [(KEY, true), (&friend, true), (&token("ben"), true), (&token("ann"), false)] {
        let trace = trace(bff, by).await;
        assert_eq!(trace["stopped"].as_str().unwrap().contains("no connection anywhere"), knows, "{trace}");
        let detail = step(&trace, "routed").unwrap()["detail"].as_str();
        assert_eq!(detail.is_some_and(|detail| detail.starts_with("0 replicas")), knows, "{trace}");
    }
    let ben = Reader::connect(&signed_in(bff, "ben")).await;
    let again = json!({ "id": "m2", "to": { "user": "ben" }, "body": "b" });
    assert_eq!(post(bff, PUBLISH, &token("ann"), again).await, 202);
    ben.wait_for(1).await;
    let connection = ben.record().welcomes[0].connection.clone();
    let (run, secret) = connection.rsplit_once('-').unwrap();
    let path = "/api/notifications/m2/trace?from=ann";
    let is_written = async || get(bff, path, KEY).await.1.contains(&connection);
    eventually("it is written", DEADLINE, is_written).await;
    for by in [&token("ann"), &friend, &token("ben")] {
        let (_, body) = get(bff, path, by).await;
        assert!(!body.contains(secret), "{body}");
        let trace: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(step(&trace, "written").unwrap()["connection"], run, "{trace}");
    }
}

/// A replica in this process whose clock is a minute behind that of its Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_at_a_replica_with_a_slow_clock_misses_no_token() {
    let (broker, _faults) = Broker::memory(Arc::new(|| now_ms() + 60_000));
    let options = IdentityOptions { jwt_secret: vec![SECRET.into()], ..IdentityOptions::default() };
    let publishing = Publishing { keys: ApiKeys::new(&[KEY.into()]).unwrap(), ..Publishing::default() };
    let settings = Settings { publishing, ..settings(&options) };
    let addr = serve(&broker, settings).await;
    let url = |path: &str| format!("http://{addr}{path}");
    let issued =
        |after_s: u64| token_with(SECRET, json!({ "user_id": "ann", "iat": now_ms() / 1_000 + after_s }));
    let state = async |token: &str| {
        Client::new().get(url(STATE)).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    // Issued by a clock like that of Redis, as far ahead as tokens are accepted.
    let before = issued(20);
    assert_eq!(state(&before).await, 200);
    let revoke = Client::new().post(url(REVOKE)).bearer_auth(KEY).json(&json!({ "user": "ann" }));
    assert_eq!(revoke.send().await.unwrap().status(), 204);
    eventually("it is refused", DEADLINE, async || state(&before).await == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_longest_name_has_presence() {
    let world = World::new();
    let bff = &people(&world, 1).await[0];
    let name = "n".repeat(128);
    let topic = format!("presence:{name}");
    let watcher = token_with(SECRET, json!({ "user_id": "ann", "topics": [topic] }));
    let watching = Reader::connect(&format!("{}?token={watcher}&topic={topic}", bff.ws())).await;
    let _there = Reader::connect(&signed_in(bff, &name)).await;
    let heard = |record: &carillon_harness::Record| {
        record.messages.iter().any(|message| {
            matches!(message, carillon_protocol::ServerMessage::Presence(one) if one.online && one.user == name)
        })
    };
    watching.until("who came", heard).await;
    let (status, body) = get(bff, &format!("/api/presence/{name}"), &watcher).await;
    assert!(status == 200 && body.contains(r#""online":true"#), "{status} {body}");
    assert_eq!(get(bff, &format!("/api/presence/{name}n"), &watcher).await.0, 400);
}
