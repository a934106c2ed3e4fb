//! `/api/users/{user}`, for programs without a Redis client.

use carillon_broker::limits::{RAW_MAX_BYTES, STATE_MAX_BYTES};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use super::{json_text, open, state_frame};
use crate::people::{KEY, people, token};
use crate::world::{Bff, World};

fn path(bff: &Bff, user: &str, what: &str) -> String {
    bff.http(&format!("/api/users/{user}/{what}"))
}

/// The status, and the body where it is JSON.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_set_with_a_key_and_read_with_a_key_or_by_its_user() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let client = Client::new();
    let mut ann = open(&format!("{}?token={}", bffs[0].ws(), token("ann"))).await;
    assert!(ann.text().await.contains("welcome"));
    assert_eq!(json_text(&mut ann).await, state_frame(&json!({})));
    let get = |user: &str, auth: &str| answer(client.get(path(&bffs[1], user, "state")).bearer_auth(auth));
    let put = |user: &str, auth: &str, body: &Value| {
        answer(client.put(path(&bffs[1], user, "state")).bearer_auth(auth).json(body))
    };
    let fields = json!({"unread": "3", "name": "Ada \u{1F514}"});
    assert_eq!(put("ann", KEY, &fields).await, (204, Value::Null));
    assert_eq!(json_text(&mut ann).await, state_frame(&fields), "on the other replica");
    assert_eq!(get("ann", KEY).await, (200, fields.clone()));
    assert_eq!(get("ann", &token("ann")).await, (200, fields.clone()));
    assert_eq!(get("nobody", KEY).await, (200, json!({})));
    // What is put takes the place of all that there was, and any program reads it.
    assert_eq!(put("ann", KEY, &json!({"unread": "4"})).await.0, 204);
    assert_eq!(world.redis.cli(&["HGETALL", "notify:ann:state"]), "unread\n4");
    assert_eq!(put("a%2Fb%20c", KEY, &fields).await.0, 204);
    assert_eq!(world.redis.cli(&["HLEN", "notify:a/b c:state"]), "2");

    for (auth, status) in [(&token("ben"), 403), (&"nonsense".to_owned(), 401), (&String::new(), 401)] {
        assert_eq!(get("ann", auth).await.0, status, "{auth}");
    }
    assert_eq!(put("ann", &token("ann"), &fields).await.0, 401);
    assert_eq!(get(&"x".repeat(129), KEY).await.0, 400);
    let (status, problem) = put("ann", KEY, &json!({"a": 1, "b": "x", "c": null})).await;
    assert_eq!((status, problem["errors"].as_array().unwrap().len()), (400, 2));
    assert_eq!(problem["errors"][0]["field"], "a");
    assert_eq!(put("ann", KEY, &json!(["x"])).await.0, 400);
    let text = client.put(path(&bffs[1], "ann", "state")).bearer_auth(KEY).body("{}");
    assert_eq!(answer(text).await.0, 415);
    assert_eq!(put("ann", KEY, &json!({"x": "y".repeat(STATE_MAX_BYTES)})).await.0, 413);
    // As large as it may be, and each byte written as six.
    assert_eq!(put("ann", KEY, &json!({"x": "\u{1}".repeat(STATE_MAX_BYTES - 1)})).await.0, 204);
    assert_eq!(world.redis.cli(&["HSTRLEN", "notify:ann:state", "x"]), (STATE_MAX_BYTES - 1).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_publishes_any_payload_to_a_user_within_a_bound() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let mut ann = open(&format!("{}?token={}", bffs[0].ws(), token("ann"))).await;
    assert!(ann.text().await.contains("welcome"));
    assert_eq!(json_text(&mut ann).await["type"], "state");
    let say = |auth: &str, kind: &str, body: Vec<u8>| {
        let request = Client::new().post(path(&bffs[1], "ann", "raw")).bearer_auth(auth);
        answer(request.header(CONTENT_TYPE, kind).body(body))
    };
    assert_eq!(say(KEY, "application/json", br#"{"n": 1.10}"#.to_vec()).await, (204, Value::Null));
    assert_eq!(ann.text().await, r#"{"type":"raw","data":{"n": 1.10}}"#);
    for auth in [token("ann"), "wrong".to_owned(), String::new()] {
        assert_eq!(say(&auth, "text/plain", b"not this".to_vec()).await.0, 401, "{auth}");
    }
    let (status, problem) = say(KEY, "text/plain", vec![b'x'; RAW_MAX_BYTES + 1]).await;
    assert_eq!((status, problem["title"].as_str()), (413, Some("payload too large")));
    assert!(problem["detail"].as_str().unwrap().contains("65536 bytes"), "{problem}");
    assert_eq!(say(KEY, "text/plain", vec![b'x'; RAW_MAX_BYTES]).await.0, 204);
    assert_eq!(json_text(&mut ann).await["data"].as_str().unwrap().len(), RAW_MAX_BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_a_foreign_page_still_cannot_publish() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let say = |origin: &str| {
        answer(Client::new().post(path(&bff, "ann", "raw")).header("origin", origin).body("boo"))
    };
    assert_eq!(say("https://elsewhere.example").await.0, 403);
    assert_eq!(say(&bff.http("")).await.0, 204);
}
