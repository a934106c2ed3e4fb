//! The limits of messages of a reader, and of publishes of a user.

use carillon_harness::{DialOptions, Proxy, Socket, eventually};
use carillon_protocol::limits::{SEND_MAX_BYTES, TOPICS_MAX};
use carillon_protocol::received::{Refused, StatusChange};
use carillon_protocol::{CloseCode, ServerMessage, Status};
use futures_util::future::join_all;
use reqwest::header;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::limits::until_counted;
use crate::people::{KEY, PEOPLE, SECRET, signed_in, token, token_with};
use crate::world::{Bff, DEADLINE, World};

async fn bff(world: &World, options: &[&str]) -> Bff {
    let bff = Bff::spawn("bff-1", &world.redis.url(), &[&PEOPLE[..], options].concat());
    bff.until_ready().await;
    bff
}

async fn open(url: &str) -> Socket {
    let mut socket = Socket::open(url, &DialOptions::default()).await.unwrap();
    socket.text().await;
    socket
}

/// Sends to zed, who is away; so nothing but the answer comes.
async fn send(socket: &mut Socket, id: &str) -> ServerMessage {
    let notification = json!({ "id": id, "to": { "user": "zed" }, "body": "b" });
    socket.send(&json!({ "type": "send", "notification": notification }).to_string()).await;
    loop {
        let message = ServerMessage::parse(&socket.text().await).unwrap();
        match &message {
            ServerMessage::Error(_) | ServerMessage::Status(StatusChange { status: Status::None, .. }) => {
                return message;
            }
            // How far an earlier one has come.
            _ => {}
        }
    }
}

async fn post(bff: &Bff, bearer: &str) -> reqwest::Response {
    let request = reqwest::Client::new().post(bff.http("/api/notifications")).bearer_auth(bearer);
    request.json(&json!({ "to": { "user": "zed" }, "body": "b" })).send().await.unwrap()
}

fn subscribe(topic: &str) -> String {
    json!({ "type": "subscribe", "topic": topic }).to_string()
}

#[tokio::test]
async fn a_user_has_one_limit_of_publishes_and_others_are_unaffected() {
    let world = World::new();
    let bff = bff(&world, &["--publishes-per-user", "1", "--publish-burst-per-user", "3"]).await;
    let mut ann = open(&signed_in(&bff, "ann")).await;
    assert!(matches!(send(&mut ann, "one").await, ServerMessage::Status(_)));
    // Whatever time this takes, it takes more from the bucket than comes back.
    let mut refused = None;
    for _ in 0..40 {
        let answer = post(&bff, &token("ann")).await;
        if answer.status() != 202 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("an end");
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()[header::RETRY_AFTER]),
        (429, &"1".parse().unwrap())
    );
    assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["title"], "too many notifications");
    until_counted(&bff, "publishes_per_user").await;
    assert_eq!(post(&bff, &token("ben")).await.status(), 202, "each has their own");
    assert_eq!(post(&bff, KEY).await.status(), 202);
    eventually("it may again", DEADLINE, async || post(&bff, &token("ann")).await.status() == 202).await;
}

#[tokio::test]
async fn a_user_who_sends_too_many_messages_is_refused_for_a_while() {
    let world = World::new();
    let bff = bff(&world, &["--publishes-per-user", "1", "--publish-burst-per-user", "2"]).await;
    let mut ann = open(&signed_in(&bff, "ann")).await;
    let mut refused = None;
    for n in 0..30 {
        if let ServerMessage::Error(Refused { code, about, detail }) = send(&mut ann, &n.to_string()).await {
            refused = Some((n, code, about, detail));
            break;
        }
    }
    let (n, code, about, detail) = refused.expect("an end");
    assert_eq!((code.as_str(), about), ("rate_limited", Some(n.to_string())));
    assert!(n >= 2 && detail.contains("at most 1 a second, 2 in a row"), "{n} {detail}");
    until_counted(&bff, "publishes_per_user").await;
    // The same message is accepted when it is sent again.
    eventually("it may again", DEADLINE, async || {
        let mut other = open(&signed_in(&bff, "ann")).await;
        matches!(send(&mut other, &n.to_string()).await, ServerMessage::Status(_))
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_sends_too_many_messages_is_closed() {
    let world = World::new();
    let bff = bff(&world, &[]).await;
    let mut socket = open(&bff.ws()).await;
    let mut other = open(&bff.ws()).await;
    for _ in 0..1_000 {
        socket.send(r#"{"type":"unheard of"}"#).await;
    }
    let (texts, code) = timeout(DEADLINE, socket.until_closed()).await.expect("an end");
    assert_eq!(code, Some(CloseCode::LIMIT));
    let last = ServerMessage::parse(texts.last().unwrap()).unwrap();
    assert!(matches!(last, ServerMessage::Error(Refused { code, .. }) if code == "rate_limited"));
    until_counted(&bff, "messages").await;
    other.send(r#"{"type":"ping"}"#).await;
    assert!(other.text().await.contains("heartbeat"));
}

/// Says `bytes` to zed, over HTTP and on the socket, each with an id of its own; the status and the words of both.
async fn say_at_length(bff: &Bff, user: &str, bytes: usize) -> [(String, String); 2] {
    let notification = |id: &str| {
        let empty = json!({ "id": id, "to": { "user": "zed" }, "body": "b", "data": "" }).to_string();
        empty.replace(r#""data":"""#, &format!(r#""data":"{}""#, "x".repeat(bytes - empty.len())))
    };
    let id = |way: &str| format!("{way}-{bytes}");
    let request = reqwest::Client::new().post(bff.http("/api/notifications")).bearer_auth(token(user));
    let request = request.header(header::CONTENT_TYPE, "application/json").body(notification(&id("http")));
    let answer = request.send().await.unwrap();
    let by_http = (answer.status().as_u16().to_string(), answer.text().await.unwrap());
    let mut socket = open(&signed_in(bff, user)).await;
    socket.send(&format!(r#"{{"type":"send","notification":{}}}"#, notification(&id("ws")))).await;
    loop {
        match ServerMessage::parse(&socket.text().await).unwrap() {
            ServerMessage::Error(Refused { code, detail, about }) => {
                assert_eq!(about, Some(id("ws")));
                return [by_http, (code, detail)];
            }
            ServerMessage::Status(StatusChange { id: said, status: Status::None, .. })
                if said == id("ws") =>
            {
                return [by_http, ("none".to_owned(), String::new())];
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_message_between_people_has_a_limit_of_bytes() {
    let world = World::new();
    let bff = bff(&world, &[]).await;
    let [http, socket] = say_at_length(&bff, "ann", SEND_MAX_BYTES).await;
    assert_eq!((http.0.as_str(), socket.0.as_str()), ("202", "none"), "{http:?} {socket:?}");
    let [http, socket] = say_at_length(&bff, "ann", SEND_MAX_BYTES + 1).await;
    assert_eq!((http.0.as_str(), socket.0.as_str()), ("413", "too_large"));
    assert!(http.1.contains("16384") && socket.1.contains("16384"), "{http:?} {socket:?}");
    let large = json!({ "body": "b", "data": "x".repeat(SEND_MAX_BYTES) });
    let request = reqwest::Client::new().post(bff.http("/api/notifications")).bearer_auth(KEY);
    assert_eq!(request.json(&large).send().await.unwrap().status(), 202, "an application may say more");
}

#[tokio::test]
async fn large_messages_count_as_several() {
    let world = World::new();
    let bff = bff(&world, &["--publishes-per-user", "1", "--publish-burst-per-user", "9"]).await;
    let mut refused = None;
    // Each counts as four; as one each, all eight would be let through.
    for bytes in 15_000..15_004 {
        let [http, _] = say_at_length(&bff, "ann", bytes).await;
        if http.0 != "202" {
            refused = Some(http);
            break;
        }
    }
    let (status, words) = refused.expect("an end");
    assert!(status == "429" && words.contains("4096 bytes"), "{status} {words}");
}

#[tokio::test]
async fn pings_count_as_messages_on_either_socket() {
    let world = World::new();
    let bff = bff(&world, &[]).await;
    let notify = format!("{}?token={}", bff.ws().replace("/ws", "/notify/ws"), token("ann"));
    for (url, is_told) in [(bff.ws(), true), (notify, false)] {
        let mut socket = open(&url).await;
        for _ in 0..1_000 {
            socket.ping().await;
        }
        let (texts, code) = timeout(DEADLINE, socket.until_closed()).await.expect("an end");
        assert_eq!(
            (code, texts.iter().any(|text| text.contains("rate_limited"))),
            (Some(CloseCode::LIMIT), is_told)
        );
    }
    // Ignored messages count as well.
    let mut socket = open(&format!("{}?token={}", bff.ws().replace("/ws", "/notify/ws"), token("ann"))).await;
    for n in 0..1_000 {
        if n % 2 == 0 { socket.send("x").await } else { socket.send_binary(b"x").await }
    }
    let (_, code) = timeout(DEADLINE, socket.until_closed()).await.expect("an end");
    assert_eq!(code, Some(CloseCode::LIMIT));
}

#[tokio::test]
async fn a_reader_has_a_limit_of_topics_and_may_exchange_them() {
    let world = World::new();
    let bff = bff(&world, &[]).await;
    let token = token_with(SECRET, json!({ "user_id": "ann", "topics": ["t*"] }));
    let topics = |count: usize| (0..count).map(|n| format!("&topic=t{n}")).collect::<String>();
    let url = |count| format!("{}?token={token}{}", bff.ws(), topics(count));
    let mut socket = open(&url(TOPICS_MAX - 1)).await;
    let refused = async |socket: &mut Socket, topic: &str| {
        socket.send(&subscribe(topic)).await;
        socket.send(r#"{"type":"ping"}"#).await;
        let mut refused = false;
        loop {
            match ServerMessage::parse(&socket.text().await).unwrap() {
                ServerMessage::Error(Refused { code, about, .. }) => {
                    assert_eq!((code.as_str(), about.as_deref()), ("too_many_topics", Some(topic)));
                    refused = true;
                }
                ServerMessage::Heartbeat(_) => return refused,
                // The user's state comes when it is read.
                _ => {}
            }
        }
    };
    assert!(!refused(&mut socket, "t-last").await);
    assert!(refused(&mut socket, "t-more").await);
    until_counted(&bff, "topics").await;
    socket.send(r#"{"type":"unsubscribe","topic":"t0"}"#).await;
    assert!(!refused(&mut socket, "t-more").await);
    let page = bff.http(&format!("/api/notifications?token={token}{}", topics(TOPICS_MAX + 1)));
    let answer = reqwest::get(page).await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.json::<Value>().await.unwrap()["errors"][0]["limit"], TOPICS_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_pages_are_bounded_and_other_requests_get_a_503() {
    // Of 2 MiB each, in 32 MiB.
    const PAGES_MAX: usize = 16;
    let world = World::alone();
    let proxy = Proxy::start(world.redis.addr()).await;
    let bff = Bff::spawn("bff-1", &format!("redis://{}", proxy.addr()), &[]);
    bff.until_ready().await;
    let page = bff.http(&format!("/api/notifications?since={}", world.broker.tail().await.unwrap()));
    let refused = async || bff.metric("carillon_limits_reached_total", r#"limit="page_bytes""#).await;
    let ask = async |count: usize| {
        // Redis takes what it is asked, and is silent.
        proxy.black_hole();
        let asked = join_all((0..count).map(|_| reqwest::get(page.clone())));
        let (answers, ()) = tokio::join!(asked, async {
            if count > PAGES_MAX {
                eventually("the others are refused", DEADLINE, async || refused().await > 0.5).await;
            }
            proxy.pass();
        });
        // Those that were under way may have been given up; nobody waits for ever.
        for answer in answers {
            let answer = answer.unwrap();
            let wait = answer.headers().contains_key(header::RETRY_AFTER);
            assert!(answer.status() == 200 || (answer.status() == 503 && wait), "{answer:?}");
        }
        eventually("pages again", DEADLINE, async || {
            reqwest::get(page.clone()).await.unwrap().status() == 200
        })
        .await;
    };
    ask(PAGES_MAX).await;
    assert!(refused().await < 0.5, "there is room for so many");
    ask(PAGES_MAX + 8).await;
}

#[tokio::test]
async fn a_job_counts_as_a_publish_of_its_owner() {
    let world = World::new();
    let options =
        ["--publishes-per-user", "1", "--publish-burst-per-user", "2", "--trusted-proxies", "127.0.0.0/8"];
    let bff = bff(&world, &[&options[..], &["--allow-jobs"]].concat()).await;
    let client = reqwest::Client::new();
    // The status of the first that is refused.
    let until_refused = async |name: &'static str, value: String, address: &'static str| {
        for _ in 0..40 {
            let request = client.post(bff.http("/api/jobs")).header("X-Forwarded-For", address);
            let status = request.header(name, &value).json(&json!({})).send().await.unwrap().status();
            if status != 202 {
                return status.as_u16();
            }
        }
        202
    };
    assert_eq!(until_refused("authorization", format!("Bearer {}", token("ann")), "192.0.2.1").await, 429);
    let opened: Value = client.post(bff.http("/api/sessions")).send().await.unwrap().json().await.unwrap();
    let session = opened["session"].as_str().unwrap().to_owned();
    assert_eq!(until_refused("carillon-session", session, "192.0.2.2").await, 429);
    assert_eq!(post(&bff, &token("ben")).await.status(), 202, "each has their own");
    until_counted(&bff, "publishes_per_user").await;
}
