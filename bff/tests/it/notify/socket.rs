//! `/notify/ws`, as the clients of notify see it.

use carillon_harness::{DialOptions, Frame, Refused, Socket, eventually};
use carillon_protocol::CloseCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Place, json_text, open, state};
use crate::people::{KEY, PEOPLE, SECRET, people, token, token_with};
use crate::world::{Bff, DEADLINE, World};

on_both_engines!(frames_are_connect_then_state_then_raw_payloads, no_change_is_lost_here_either,);

fn url(bff: &Bff, query: &str) -> String {
    bff.ws().replace("/ws", &format!("/notify/ws{query}"))
}

fn connected(user: &str) -> Value {
    json!({ "kind": "connect", "userID": user })
}

fn state_frame(state: &Value) -> Value {
    json!({ "kind": "state", "state": state })
}

impl Place {
    async fn notified(&self, at: usize, user: &str) -> Socket {
        let url = format!("ws://{}/notify/ws?authorization={}", self.replicas[at], token(user));
        let mut socket = open(&url).await;
        assert_eq!(json_text(&mut socket).await, connected(user));
        socket
    }
}

async fn frames_are_connect_then_state_then_raw_payloads(place: Place) {
    place.broker.set_state("ann", &state(&[("unread_messages", "1")])).await.unwrap();
    let mut ben = place.notified(1, "ben").await;
    assert_eq!(json_text(&mut ben).await, state_frame(&json!({})));
    let mut ann = [place.notified(0, "ann").await, place.notified(1, "ann").await];
    for socket in &mut ann {
        assert_eq!(json_text(socket).await, state_frame(&json!({"unread_messages": "1"})));
        // Messages of a client are read and dropped.
        socket.send("hello").await;
        socket.send_binary(b"\0").await;
    }
    // A notification is none of its frames.
    let notification = json!({"id": "n", "body": "b", "to": {"user": "ann"}}).to_string();
    place.broker.push(&[notification.into_bytes(), br#"{"id":"all","body":"b"}"#.to_vec()]).await.unwrap();
    let raw: [(&[u8], &str); 4] = [
        (b"plain text", "plain text"),
        (b" { \"kind\": \"mail\",\n\"n\": 1.10 }\n", " { \"kind\": \"mail\",\n\"n\": 1.10 }\n"),
        (b"", ""),
        (b"\xff.", "\u{fffd}."),
    ];
    for (said, heard) in raw {
        place.broker.publish_raw("ann", said).await.unwrap();
        for socket in &mut ann {
            assert_eq!(socket.text().await, heard);
        }
    }
    place.broker.set_state("ann", &state(&[("unread_messages", "2")])).await.unwrap();
    for socket in &mut ann {
        assert_eq!(json_text(socket).await, state_frame(&json!({"unread_messages": "2"})));
    }
    place.broker.publish_raw("ben", b"for ben").await.unwrap();
    assert_eq!(ben.text().await, "for ben", "the first that he hears");
}

async fn no_change_is_lost_here_either(place: Place) {
    for round in 0..40 {
        let user = format!("user-{round}");
        let writing = async {
            for n in 1..=3 {
                place.broker.set_state(&user, &state(&[("n", &format!("{n}"))])).await.unwrap();
            }
        };
        let (mut socket, ()) = tokio::join!(place.notified(round % 2, &user), writing);
        while json_text(&mut socket).await["state"]["n"] != "3" {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_required_and_read_where_notify_s_clients_put_it() {
    let world = World::new();
    let args = [&PEOPLE[..], &["--session-cookie", "jwt"]].concat();
    let bff = &Bff::spawn("bff-1", &world.redis.url(), &args);
    bff.until_ready().await;
    let (ann, ben) = (token("ann"), token("ben"));
    let header = |name: &str, value: String| vec![(name.to_owned(), value)];
    let asked = async |query: String, headers: Vec<(String, String)>| {
        let options = DialOptions { headers, ..DialOptions::default() };
        match Socket::open(&url(bff, &query), &options).await {
            Ok(mut socket) => Ok(json_text(&mut socket).await),
            Err(Refused::Status(status, body)) => {
                let problem: Value = serde_json::from_str(&body).unwrap();
                assert_eq!(problem["status"], status);
                Err(status)
            }
            Err(other) => panic!("{other:?}"),
        }
    };
    for (query, headers, expected) in [
        (format!("?authorization={ann}"), vec![], Ok(connected("ann"))),
        (format!("?authorization=Bearer%20{ann}"), vec![], Ok(connected("ann"))),
        (format!("?topic=x&authorization=Bearer+{ann}"), vec![], Ok(connected("ann"))),
        (format!("?token={ann}"), vec![], Ok(connected("ann"))),
        (String::new(), header("authorization", format!("Bearer {ann}")), Ok(connected("ann"))),
        (String::new(), header("authorization", ann.clone()), Ok(connected("ann"))),
        (format!("?authorization={ann}"), header("cookie", format!("jwt={ben}")), Ok(connected("ann"))),
        (String::new(), header("cookie", format!("a=b; jwt={ben}")), Ok(connected("ben"))),
        (format!("?authorization={ben}"), header("authorization", ann.clone()), Ok(connected("ann"))),
        (String::new(), vec![], Err(401)),
        ("?authorization=".to_owned(), vec![], Err(401)),
        ("?authorization=nonsense".to_owned(), header("cookie", format!("jwt={ben}")), Err(401)),
        (String::new(), header("cookie", format!("other={ben}")), Err(401)),
        (format!("?authorization={ann}"), header("origin", "https://elsewhere.example".to_owned()), Err(403)),
    ] {
        assert_eq!(asked(query.clone(), headers.clone()).await, expected, "{query} {headers:?}");
    }
    let plain = reqwest::Client::new().get(bff.http("/notify/ws")).bearer_auth(ann);
    assert_eq!(plain.send().await.unwrap().status(), 426);
    assert!(bff.metric("carillon_readers_refused_total", "401").await > 3.5);
    let all_left = async || {
        let joined = bff.metric("carillon_readers_joined_total", "notify").await;
        joined > 8.5 && (joined - bff.metric("carillon_readers_left_total", "notify").await).abs() < 0.5
    };
    eventually("all have left", DEADLINE, all_left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_closed_with_a_code_and_no_other_frame() {
    let world = World::new();
    let bff = people(&world, 1).await.remove(0);
    let open = async |token: &str| {
        let mut socket = open(&url(&bff, &format!("?authorization={token}"))).await;
        assert_eq!(json_text(&mut socket).await["kind"], "connect");
        assert_eq!(json_text(&mut socket).await["kind"], "state");
        socket
    };
    // Tokens are valid for some seconds after their exp, since clocks differ.
    let soon = token_with(SECRET, json!({"user_id": "ann", "exp": carillon_bff::now_ms() / 1_000 - 27}));
    let (mut expires, mut revoked, mut drained) =
        (open(&soon).await, open(&token("ben")).await, open(&token("cid")).await);
    let revoke = reqwest::Client::new().post(bff.http("/api/revocations")).bearer_auth(KEY);
    assert_eq!(revoke.json(&json!({"user": "ben"})).send().await.unwrap().status(), 204);
    assert_eq!(revoked.until_closed().await, (vec![], Some(CloseCode::REFUSED)));
    assert_eq!(expires.until_closed().await, (vec![], Some(CloseCode::TOKEN_EXPIRED)));
    bff.process.sigterm();
    assert_eq!(drained.until_closed().await, (vec![], Some(CloseCode::DRAIN)));
}

#[tokio::test(start_paused = true)]
async fn it_gets_pings_and_no_other_frame() {
    let place = Place::in_memory().await;
    let mut socket = place.notified(0, "ann").await;
    assert_eq!(json_text(&mut socket).await, state_frame(&json!({})));
    let began = Instant::now();
    for beat in 1..=4 {
        assert_eq!(socket.frame().await, Frame::Ping);
        assert_eq!(began.elapsed().as_secs(), beat * 25);
    }
}
