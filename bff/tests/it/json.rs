//! One rule for JSON at every input: an input accepts what the claim accepts, and refuses everything else readably. The list
//! of values is that of the harness; the list itself, a worker's reports and `producer --stdin` are tested with it in their
//! own crates.

use std::net::SocketAddr;
use std::sync::Arc;

use carillon_auth::identity::IdentityOptions;
use carillon_bff::signed::{Signing, SigningOptions};
use carillon_bff::{Settings, Upstream, UpstreamOptions, now_ms};
use carillon_broker::{Broker, DeadList};
use carillon_harness::{DialOptions, Hostile, Socket, eventually, hostile};
use carillon_protocol::{CloseCode, ServerMessage, check_json};
use serde_json::{Value, json};
use strum::VariantArray;

use crate::people::{SECRET, token};
use crate::upstream::WEBHOOK;
use crate::upstream::application::{Answer, Application};
use crate::world::{DEADLINE, World, serve, settings};

/// A service on this engine, and its application.
struct Service {
    broker: Broker,
    addr: SocketAddr,
    application: Application,
}

impl Service {
    async fn over(broker: Broker) -> Self {
        let application = Application::start(|_, _| Answer::Status(204)).await;
        let secret = Some(WEBHOOK.into());
        let signing = Signing::new(&SigningOptions { webhook_secret: secret, apiauth_secret: None }).unwrap();
        let upstream = UpstreamOptions { upstream_url: Some(application.url()) };
        let upstream = Upstream::new(&upstream, &signing).unwrap();
        let people = IdentityOptions {
            jwt_secret: vec![SECRET.into()],
            people_send: true,
            ..IdentityOptions::default()
        };
        let addr = serve(&broker, Settings { signing, upstream, ..settings(&people) }).await;
        Self { broker, addr, application }
    }

    /// Posts a body; returns the status, and the text of a refusal.
    async fn post(&self, path: &str, body: Vec<u8>) -> (u16, String) {
        self.ask(reqwest::Client::new().post(format!("http://{}{path}", self.addr)), body).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder, body: Vec<u8>) -> (u16, String) {
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// A socket of ann's, welcomed.
    async fn socket(&self) -> Socket {
        let url = format!("ws://{}/ws?token={}", self.addr, token("ann"));
        let mut socket = Socket::open(&url, &DialOptions::default()).await.unwrap();
        assert!(socket.text().await.contains("welcome"));
        socket
    }

    /// Sends a frame; returns the kinds of the frames that answer it and a ping after it, or the reason of the close.
    async fn say(&self, frame: &str) -> Result<Vec<&'static str>, String> {
        let mut socket = self.socket().await;
        socket.send(frame).await;
        socket.send(r#"{"type":"ping"}"#).await;
        let mut kinds = Vec::new();
        loop {
            let text = match socket.frame().await {
                carillon_harness::Frame::Text(text) => text,
                carillon_harness::Frame::Closed(code) => {
                    assert_eq!(code, Some(CloseCode::BAD_MESSAGE));
                    return Err("closed".to_owned());
                }
                _ => continue,
            };
            match ServerMessage::parse(&text).unwrap() {
                ServerMessage::Heartbeat(_) => return Ok(kinds),
                ServerMessage::Error(error) if error.code == "bad_message" => {
                    assert!(error.detail.contains("JSON"), "{}", error.detail);
                }
                ServerMessage::Error(error) => return Err(error.detail),
                ServerMessage::Status(_) => kinds.push("status"),
                _ => {}
            }
        }
    }
}

fn http_fault(door: &str, one: &Hostile, good: u16, (status, words): (u16, String)) -> Option<String> {
    let is_readable = || {
        words.contains("JSON") || words.contains("json") || words.contains("utf-8") || words.contains("text")
    };
    let as_expected = if one.taken { status == good } else { status == 400 && is_readable() };
    (!as_expected).then(|| format!("{door}: {}: {status} {words}", one.what))
}

async fn every_door(broker: Broker) {
    let service = Service::over(broker).await;
    let (mut faults, mut said, mut pushed) = (Vec::new(), 0, 0);
    for (n, one) in hostile().iter().enumerate() {
        let entry = |kind: &str| format!(r#"{{"id":"{kind}-{n}","to":{{"user":"ann"}},"body":"b","data":"#);
        let answer = service.post("/api/notifications", one.within(&entry("key"), "}")).await;
        faults.extend(http_fault("POST", one, 202, answer));
        let is_text = one.json.starts_with(b"\"");
        if is_text || !one.taken {
            let body = one.within(r#"{"userID":"ann","message":"#, "}");
            let answer = service.post("/twirp/notify.NotifyService/Publish", body).await;
            faults.extend(http_fault("Twirp", one, 200, answer));
            let state = format!("http://{}/api/users/ann/state", service.addr);
            let answer =
                service.ask(reqwest::Client::new().put(state), one.within(r#"{"field":"#, "}")).await;
            faults.extend(http_fault("state", one, 204, answer));
        }
        pushed += usize::from(one.taken);
        let Some(text) = one.text() else { continue };
        for frame in [
            format!(r#"{{"type":"send","notification":{}{text}}}}}"#, entry("send").replace("ann", "ben")),
            format!(r#"{{"type":"message","id":"{n}","data":{text}}}"#),
        ] {
            match service.say(&frame).await {
                Ok(kinds) if one.taken && frame.contains("send") => {
                    assert!(kinds.contains(&"status"), "{}: {kinds:?}", one.what);
                }
                Ok(_) if one.taken => said += usize::from(text.trim() != "null"),
                Err(_) if !one.taken || text == "null" => {}
                other => faults.push(format!("{frame:.60}: {}: {other:?}", one.what)),
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    service.application.wait_for(said).await;
    let page = format!("http://{}/api/notifications?limit=1000", service.addr);
    let count = async |user: &str| {
        let answer = reqwest::Client::new().get(&page).bearer_auth(token(user)).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["items"].as_array().unwrap().len()
    };
    for user in ["ann", "ben"] {
        eventually("what was taken is in history", DEADLINE, async || count(user).await == pushed).await;
    }
    for list in DeadList::VARIANTS.iter().copied() {
        let dead = service.broker.dead(list).await.unwrap();
        assert!(dead.is_empty(), "what a door takes, the claim takes: {dead:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_input_accepts_what_the_claim_accepts_over_redis() {
    let world = World::new();
    every_door(world.broker.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_input_accepts_what_the_claim_accepts_in_memory() {
    let (broker, _faults) = Broker::memory(Arc::new(now_ms));
    every_door(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_payload_is_json_if_all_programs_parse_it_alike_or_a_string() {
    let (broker, _faults) = Broker::memory(Arc::new(now_ms));
    let service = Service::over(broker).await;
    let mut socket = service.socket().await;
    for one in hostile() {
        let (status, words) = service.post("/api/users/ann/raw", one.json.clone()).await;
        assert_eq!(status, 204, "{}: {words}", one.what);
        let frame = loop {
            let text = socket.text().await;
            if text.contains(r#""type":"raw""#) {
                break text;
            }
        };
        assert_eq!(check_json(&frame), Ok(()), "{}: {frame:.80}", one.what);
        let data = serde_json::from_str::<Value>(&frame).unwrap()["data"].clone();
        let expected = if one.taken {
            serde_json::from_slice(&one.json).unwrap()
        } else {
            json!(String::from_utf8_lossy(&one.json))
        };
        // A byte order mark before JSON is ignored.
        let expected = if one.what == "a mark of byte order within" { json!(1) } else { expected };
        assert_eq!(data, expected, "{}", one.what);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_names_are_refused_where_their_value_counts() {
    let (broker, _faults) = Broker::memory(Arc::new(now_ms));
    let service = Service::over(broker).await;
    let state = || reqwest::Client::new().put(format!("http://{}/api/users/ann/state", service.addr));
    let (status, words) = service.ask(state(), br#"{"a":"1","a":"2"}"#.to_vec()).await;
    assert!(status == 400 && words.contains("repeated"), "{status} {words}");
    let entry = br#"{"body":"b","to":{"user":"ann"},"to":null}"#.to_vec();
    let (status, words) = service.post("/api/notifications", entry).await;
    assert!(status == 400 && words.contains("repeated"), "{status} {words}");
    // A byte order mark is ignored everywhere.
    let marked = |json: &str| format!("\u{feff}{json}").into_bytes();
    assert_eq!(service.ask(state(), marked(r#"{"a":"1"}"#)).await.0, 204);
    assert_eq!(service.post("/api/notifications", marked(r#"{"body":"b"}"#)).await.0, 202);
    let twirp = marked(r#"{"userID":"ann","message":"m"}"#);
    assert_eq!(service.post("/twirp/notify.NotifyService/Publish", twirp).await.0, 200);
}
