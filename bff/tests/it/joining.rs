//! How a client joins without a secret in its URL, and how it gets what it missed in a topic.

use carillon_bff::now_ms;
use carillon_harness::{DialOptions, Reader, ReaderOptions, Refused, Socket};
use carillon_protocol::{Audience, CloseCode, GapReason, Resume, ServerMessage, Welcome};
use serde_json::{Value, json};

use crate::people::{PEOPLE, SECRET, people, people_with, token, token_with};
use crate::world::{Bff, World, entry, until_claimed};

/// Opens a WebSocket that names these subprotocols.
async fn open(url: &str, subprotocols: &str) -> Socket {
    let headers = vec![("sec-websocket-protocol".to_owned(), subprotocols.to_owned())];
    Socket::open(url, &DialOptions { headers, ..DialOptions::default() }).await.unwrap()
}

async fn welcome(socket: &mut Socket) -> Welcome {
    match ServerMessage::parse(&socket.text().await).unwrap() {
        ServerMessage::Welcome(welcome) => welcome,
        other => panic!("{other:?} was not expected"),
    }
}

/// The code of the error that comes before the end, and that of the end.
async fn refused(mut socket: Socket) -> (Option<String>, Option<CloseCode>) {
    let (texts, code) = socket.until_closed().await;
    let mut errors = texts.iter().filter_map(|text| match ServerMessage::parse(text).unwrap() {
        ServerMessage::Error(refused) => Some(refused.code),
        _ => None,
    });
    (errors.next_back(), code)
}

fn to_topic(topic: &str, id: &str) -> String {
    json!({ "id": id, "body": "b", "to": { "topic": topic } }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_and_a_session_come_in_subprotocols() {
    let world = World::new();
    let bff = &people(&world, 1).await[0];
    let mut socket = open(&bff.ws(), &format!("carillon, bearer.{}", token("ann"))).await;
    assert_eq!(welcome(&mut socket).await.user.as_deref(), Some("ann"));
    let mut socket = open(&bff.ws(), "carillon, session.new").await;
    let session = welcome(&mut socket).await.session.unwrap();
    let both = format!("carillon, session.{session}, bearer.{}", token("ann"));
    let mut socket = open(&bff.ws(), &both).await;
    let again = welcome(&mut socket).await;
    assert_eq!((again.user.as_deref(), again.session), (Some("ann"), Some(session)));
    let headers = vec![("sec-websocket-protocol".to_owned(), "carillon, bearer.nonsense".to_owned())];
    let refused = Socket::open(&bff.ws(), &DialOptions { headers, ..DialOptions::default() }).await;
    assert!(matches!(refused, Err(Refused::Status(401, _))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_carries_the_parameters_of_the_url() {
    let world = World::new();
    let bff = &people_with(&world, 1, &["--public-topics", "news"]).await[0];
    let start = world.broker.tail().await.unwrap().to_string();
    world.push([entry("everyone"), to_topic("news", "news"), to_topic("other", "other")]).await;
    let mut socket = open(&bff.ws(), "carillon").await;
    let hello = json!({ "type": "hello", "token": token("ann"), "session": "new", "topics": ["news"], "since": start });
    socket.send(&hello.to_string()).await;
    let welcome = welcome(&mut socket).await;
    assert_eq!((welcome.user.as_deref(), welcome.resume), (Some("ann"), Resume::Complete));
    assert!(welcome.session.is_some());
    let mut ids = vec![];
    while ids.len() < 2 {
        if let ServerMessage::Notification(delivered) = ServerMessage::parse(&socket.text().await).unwrap() {
            let notification: Value = serde_json::from_str(delivered.notification.get()).unwrap();
            ids.push(notification["id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(ids, ["everyone", "news"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_is_refused_gets_an_error_and_a_close_code() {
    let world = World::new();
    let bff = &people(&world, 1).await[0];
    let say = async |text: &str| {
        let mut socket = open(&bff.ws(), "carillon").await;
        socket.send(text).await;
        refused(socket).await
    };
    let forbidden = (Some("forbidden".to_owned()), Some(CloseCode::REFUSED));
    assert_eq!(say(r#"{"type":"hello","token":"nonsense"}"#).await, forbidden);
    assert_eq!(say(r#"{"type":"hello","topics":["secret"]}"#).await, forbidden);
    assert_eq!(say(r#"{"type":"ping"}"#).await, (None, Some(CloseCode::BAD_MESSAGE)));
    assert_eq!(say("nonsense").await, (None, Some(CloseCode::BAD_MESSAGE)));
    let ran_out = token_with(SECRET, json!({ "user_id": "ann", "exp": now_ms() / 1_000 - 3_600 }));
    assert_eq!(say(&json!({ "type": "hello", "token": ran_out }).to_string()).await, forbidden);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_hello_is_closed_at_the_stop_and_its_pings_count() {
    let world = World::new();
    let bff = &people(&world, 1).await[0];
    let mut flood = open(&bff.ws(), "carillon").await;
    // More than the 60 in a row and the 20 a second that may come while they are sent.
    for _ in 0..1_000 {
        flood.ping().await;
    }
    assert_eq!(refused(flood).await, (None, Some(CloseCode::LIMIT)));
    let waits = open(&bff.ws(), "carillon").await;
    bff.process.sigterm();
    assert_eq!(refused(waits).await, (None, Some(CloseCode::DRAIN)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_subscribed_from_the_client_s_cursor() {
    let world = World::new();
    let bff = Bff::spawn("bff-1", &world.redis.url(), &[&PEOPLE[..], &["--public-topics", "news"]].concat());
    bff.until_ready().await;
    let reader = Reader::connect(&bff.ws()).await;
    reader.send(r#"{"type":"subscribe","topic":"news"}"#).await;
    world.push([entry("before")]).await;
    reader.until("the first", |record| record.ids() == ["before"]).await;
    world.push([to_topic("news", "had")]).await;
    let had = reader.wait_for(2).await[1].cursor.clone();
    drop(reader);
    world.push([to_topic("news", "missed-1"), entry("between"), to_topic("news", "missed-2")]).await;

    // What came for everyone is replayed before the topic is taken up again.
    let back =
        Reader::connect_with(ReaderOptions { since: Some(had.clone()), ..ReaderOptions::new(&[&bff.ws()]) });
    let back = back.await;
    back.until("what came for everyone", |record| record.ids() == ["between"]).await;
    back.send(&json!({ "type": "subscribe", "topic": "news", "since": had }).to_string()).await;
    back.until("what was missed", |record| record.ids() == ["between", "missed-1", "missed-2"]).await;
    world.push([to_topic("news", "live")]).await;
    back.until("what comes then", |record| record.ids() == ["between", "missed-1", "missed-2", "live"]).await;
    let record = back.record();
    assert_eq!((record.repeated, record.gaps), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_sent_once_and_names_its_audience() {
    let world = World::new();
    let bff = &people_with(&world, 1, &["--history-everyone", "24h/40/64MiB"]).await[0];
    let start = world.broker.tail().await.unwrap().to_string();
    let to_ann =
        |n: usize| json!({ "id": format!("ann-{n}"), "body": "b", "to": { "user": "ann" } }).to_string();
    // Histories are cut by whole nodes, so much more than what is kept makes sure that something goes.
    let pushed: Vec<_> = (0..600).flat_map(|n| [entry(n), to_ann(n)]).collect();
    world.push(pushed).await;
    until_claimed(&world.broker).await;
    let url = format!("{}?token={}", bff.ws(), token("ann"));
    let reader =
        Reader::connect_with(ReaderOptions { since: Some(start), ..ReaderOptions::new(&[&url]) }).await;
    reader.until("the newest", |record| record.ids().ends_with(&["599", "ann-599"])).await;
    let record = reader.record();
    assert_eq!(record.gaps, [(GapReason::Trimmed, Some(Audience::Everyone))]);
    let own: Vec<_> = record.ids().into_iter().filter(|id| id.starts_with("ann-")).collect();
    assert_eq!(own, (0..600).map(|n| format!("ann-{n}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_read_from_the_newest_end_backwards() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let start = world.broker.tail().await.unwrap().to_string();
    world.push((0..250).map(entry)).await;
    until_claimed(&world.broker).await;
    let page = async |query: &str| -> Value {
        reqwest::get(bff.http(&format!("/api/notifications?{query}"))).await.unwrap().json().await.unwrap()
    };
    let ids = |page: &Value| -> Vec<usize> {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["notification"]["id"].as_str().unwrap().parse().unwrap()).collect()
    };
    let newest = page("before=now&limit=100").await;
    assert_eq!(ids(&newest), (150..250).collect::<Vec<_>>(), "in the order in which they came");
    let middle = page(&format!("before={}&limit=100", newest["previous"].as_str().unwrap())).await;
    assert_eq!(ids(&middle), (50..150).collect::<Vec<_>>());
    let first = page(&format!("before={}&limit=100", middle["previous"].as_str().unwrap())).await;
    assert_eq!(ids(&first), (0..50).collect::<Vec<_>>());
    // And no further back than where the reader stood.
    let stood = page(&format!("since={start}&limit=200")).await["next"].as_str().unwrap().to_owned();
    let late = page(&format!("before=now&since={stood}&limit=100")).await;
    assert_eq!(ids(&late), (200..250).collect::<Vec<_>>());
    // A socket goes on where the newest page ends.
    let url = format!("{}?since={}", bff.ws(), newest["next"].as_str().unwrap());
    let reader = Reader::connect(&url).await;
    world.push([entry("live")]).await;
    assert_eq!(reader.wait_for(1).await[0].id, "live");
    assert!(reader.record().gaps.is_empty());
}
