//! `/twirp/notify.NotifyService`, byte by byte.

use carillon_broker::limits::RAW_MAX_BYTES;
use carillon_harness::eventually;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::{json_text, open, state};
use crate::people::{KEY, PEOPLE, people, token};
use crate::world::{Bff, DEADLINE, World};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";

struct Answer {
    status: u16,
    kind: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.kind, JSON);
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn call(bff: &Bff, method: &str, auth: &str, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
    let url = bff.http(&format!("/twirp/notify.NotifyService/{method}"));
    let request = Client::new().post(url).bearer_auth(auth).header("content-type", kind).body(body.into());
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let kind = headers["content-type"].to_str().unwrap().to_owned();
    Answer { status, kind, body: answer.bytes().await.unwrap().to_vec() }
}

/// A text field of a protobuf message.
fn field(number: u8, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() % 128).unwrap();
    let length = if text.len() < 128 {
        vec![length]
    } else {
        vec![length | 128, u8::try_from(text.len() / 128).unwrap()]
    };
    [vec![number << 3 | 2], length, text.as_bytes().to_vec()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_methods_answer_in_protobuf_and_in_json() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let ann = token("ann");
    for authorization in [ann.clone(), format!("Bearer {ann}")] {
        let answer = call(&bffs[0], "Auth", "", PROTOBUF, field(1, &authorization)).await;
        assert_eq!((answer.status, &answer.kind[..], &answer.body[..]), (200, PROTOBUF, &b"\x0a\x03ann"[..]));
        let body = json!({"authorization": authorization, "later": [1]}).to_string();
        let answer = call(&bffs[0], "Auth", "", "Application/JSON; charset=utf-8", body).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"userID": "ann"})));
    }

    let mut socket = open(&format!("{}?token={ann}", bffs[1].ws())).await;
    assert!(socket.text().await.contains("welcome"));
    assert_eq!(json_text(&mut socket).await["type"], "state");
    let body = [field(1, "ann"), field(2, r#"{"n": 1.10}"#)].concat();
    let answer = call(&bffs[0], "Publish", KEY, PROTOBUF, body).await;
    assert_eq!((answer.status, &answer.kind[..], &answer.body[..]), (200, PROTOBUF, &b""[..]));
    assert_eq!(socket.text().await, r#"{"type":"raw","data":{"n": 1.10}}"#);
    let body = json!({"userID": "ann", "message": "hello"}).to_string();
    let answer = call(&bffs[0], "Publish", KEY, JSON, body).await;
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    assert_eq!(socket.text().await, r#"{"type":"raw","data":"hello"}"#);
    // Absent and null are empty.
    let body = json!({"userID": "ann", "message": null}).to_string();
    assert_eq!(call(&bffs[0], "Publish", KEY, JSON, body).await.status, 200);
    assert_eq!(socket.text().await, r#"{"type":"raw","data":""}"#);

    let empty = call(&bffs[0], "State", KEY, JSON, r#"{"userID":"ben"}"#).await;
    assert_eq!((empty.status, empty.json()), (200, json!({"state": {}})));
    world.broker.set_state("ann", &state(&[("a", "1"), ("b", "2")])).await.unwrap();
    for auth in [KEY, &ann] {
        let answer = call(&bffs[0], "State", auth, PROTOBUF, field(1, "ann")).await;
        let expected = b"\x0a\x06\x0a\x01a\x12\x011\x0a\x06\x0a\x01b\x12\x012";
        assert_eq!((answer.status, &answer.body[..]), (200, &expected[..]));
        let answer = call(&bffs[0], "State", auth, JSON, r#"{"userID":"ann"}"#).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"state": {"a": "1", "b": "2"}})));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_errors_of_twirp() {
    let world = World::alone();
    let bff = &people(&world, 1).await[0];
    let (ann, large) = (token("ann"), "x".repeat(RAW_MAX_BYTES + 1));
    let larger = json!({"userID": "ann", "later": "x".repeat(8 * RAW_MAX_BYTES)}).to_string();
    let publish = |user: &str, message: &str| json!({"userID": user, "message": message}).to_string();
    for (method, auth, kind, body, status, code) in [
        ("Auth", "", JSON, "{}".to_owned(), 401, "unauthenticated"),
        ("Auth", "", JSON, json!({"authorization": "nonsense"}).to_string(), 401, "unauthenticated"),
        ("Auth", "", JSON, json!({"authorization": 1}).to_string(), 400, "malformed"),
        ("Auth", "", JSON, json!([ann]).to_string(), 400, "malformed"),
        ("Auth", "", JSON, String::new(), 400, "malformed"),
        ("Auth", "", PROTOBUF, "\u{a}\u{5}x".to_owned(), 400, "malformed"),
        ("Auth", "", PROTOBUF, String::new(), 401, "unauthenticated"),
        ("Auth", "", "text/plain", "{}".to_owned(), 404, "bad_route"),
        ("Forget", "", JSON, "{}".to_owned(), 404, "bad_route"),
        ("Publish", &ann, JSON, publish("ann", "x"), 401, "unauthenticated"),
        ("Publish", KEY, JSON, publish("", "x"), 400, "invalid_argument"),
        ("Publish", KEY, JSON, publish("ann", &large), 400, "invalid_argument"),
        ("State", KEY, JSON, larger, 400, "invalid_argument"),
        ("State", &ann, JSON, json!({"userID": "ben"}).to_string(), 403, "permission_denied"),
        ("State", "", JSON, json!({"userID": "ann"}).to_string(), 401, "unauthenticated"),
        ("State", KEY, JSON, json!({"userID": "x".repeat(129)}).to_string(), 400, "invalid_argument"),
    ] {
        let what = format!("{method} {kind} {}", &body[..body.len().min(80)]);
        let answer = call(bff, method, auth, kind, body).await;
        let error = answer.json();
        assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{what}: {error}");
        assert!(!error["msg"].as_str().unwrap().is_empty(), "{what}");
        assert_eq!(error["meta"].is_object(), code == "bad_route", "{what}: {error}");
    }
    for (method, path, words) in [
        (
            Method::GET,
            "/twirp/notify.NotifyService/Auth",
            r#"unsupported method "GET" (only POST is allowed)"#,
        ),
        (Method::POST, "/twirp/other.Service/Auth", r#"no handler for path "/twirp/other.Service/Auth""#),
        (Method::POST, "/twirp/x", r#"no handler for path "/twirp/x""#),
    ] {
        let answer = Client::new().request(method.clone(), bff.http(path)).send().await.unwrap();
        assert_eq!(answer.status(), 404);
        let meta = json!({"twirp_invalid_route": format!("{method} {path}")});
        let expected = json!({"code": "bad_route", "msg": words, "meta": meta});
        assert_eq!(answer.json::<Value>().await.unwrap(), expected);
    }
    world.redis.stop();
    let away = async || {
        let answer = call(bff, "State", KEY, JSON, r#"{"userID":"ann"}"#).await;
        answer.status == 503 && answer.json()["code"] == "unavailable"
    };
    eventually("Redis is missed", DEADLINE, away).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_authorization_uses_the_cookie_unless_a_foreign_page_sends_it() {
    let world = World::new();
    let args = [&PEOPLE[..], &["--session-cookie", "jwt"]].concat();
    let bff = Bff::spawn("bff-1", &world.redis.url(), &args);
    bff.until_ready().await;
    let ask = async |authorization: String, origin: &str| {
        let request = Client::new()
            .post(bff.http("/twirp/notify.NotifyService/Auth"))
            .header("cookie", format!("jwt={}", token("ben")))
            .header("origin", origin)
            .json(&json!({"authorization": authorization}));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer.get("userID").or(answer.get("code")).unwrap().as_str().unwrap().to_owned()
    };
    let own = bff.http("");
    assert_eq!(ask(String::new(), &own).await, "ben");
    assert_eq!(ask(token("ann"), &own).await, "ann");
    assert_eq!(ask("nonsense".to_owned(), &own).await, "unauthenticated");
    assert_eq!(ask(String::new(), "https://elsewhere.example").await, "permission_denied");
}
