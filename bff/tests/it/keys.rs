//! The rights of each key, and the limit of wrong keys.

use std::process::Command;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::people::{SECRET, token};
use crate::world::{Bff, World};

const PUBLISHES: &str = "the-secret-that-publishes";
const READS: &str = "the-secret-that-reads";
const REVOKES: &str = "the-secret-that-revokes";
const ALL: &str = "a-secret-for-all-of-it";

const KEYS: &str = "shop:publish:the-secret-that-publishes,desk:read:the-secret-that-reads,\
                    ops:revoke:the-secret-that-revokes,a-secret-for-all-of-it";

async fn keyed(world: &World, options: &[&str]) -> Bff {
    let bff = Bff::spawn("bff-1", &world.redis.url(), &[&["--api-key", KEYS], options].concat());
    bff.until_ready().await;
    bff
}

async fn ask(bff: &Bff, method: &Method, path: &str, key: &str, body: Option<&Value>) -> Response {
    let request = Client::new().request(method.clone(), bff.http(path)).bearer_auth(key);
    body.into_iter().fold(request, RequestBuilder::json).send().await.unwrap()
}

#[tokio::test]
async fn a_key_has_the_rights_of_its_scopes_only() {
    let world = World::new();
    let mut bff = keyed(&world, &["--jwt-secret", SECRET]).await;
    let (body, revocation) = (json!({ "id": "m", "body": "b" }), json!({ "user": "ann" }));
    let said = json!({ "userID": "ann", "message": "m" });
    let (state, whose) = (json!({}), json!({ "userID": "ann" }));
    let twirp = |name: &str| format!("/twirp/notify.NotifyService/{name}");
    for (method, path, body, scope) in [
        (Method::POST, "/api/notifications", Some(&body), PUBLISHES),
        (Method::POST, "/api/users/ann/raw", Some(&body), PUBLISHES),
        (Method::PUT, "/api/users/ann/state", Some(&state), PUBLISHES),
        (Method::POST, &twirp("Publish"), Some(&said), PUBLISHES),
        (Method::GET, "/api/users/ann/state", None, READS),
        (Method::GET, "/api/presence/ann", None, READS),
        (Method::GET, "/api/presence?user=ann", None, READS),
        (Method::GET, "/api/notifications/none?from=ann", None, READS),
        (Method::GET, "/api/notifications/none/trace?from=ann", None, READS),
        (Method::POST, &twirp("State"), Some(&whose), READS),
        (Method::POST, "/api/revocations", Some(&revocation), REVOKES),
    ] {
        for key in [PUBLISHES, READS, REVOKES] {
            let status = ask(&bff, &method, path, key, body).await.status().as_u16();
            let may = (200..300).contains(&status) || status == 404;
            assert_eq!((may, status == 403), (key == scope, key != scope), "{method} {path} {key}: {status}");
        }
        assert_ne!(ask(&bff, &method, path, ALL, body).await.status(), 403, "{method} {path}");
    }
    let answer = ask(&bff, &Method::GET, "/api/presence/ann", PUBLISHES, None).await;
    let problem: Value = answer.json().await.unwrap();
    assert!(
        problem["detail"].as_str().unwrap().contains("the key has publish, and this needs read"),
        "{problem}"
    );
    let line = bff.process.wait_line("a key lacks the scope of a request").await;
    assert!(line.contains("desk") && !line.contains(READS), "{line}");
    // A key is not taken for a bad token, nor a token for a wrong key.
    assert_eq!(ask(&bff, &Method::GET, "/api/users/ann/state", &token("ann"), None).await.status(), 401);
    assert!(bff.metric("carillon_keys_refused_total", "scope").await > 0.5);
    assert!(bff.metric("carillon_keys_refused_total", "unknown").await < 0.5);
}

#[tokio::test]
async fn wrong_keys_are_counted_and_then_refused_with_a_time_to_wait() {
    let world = World::new();
    let mut bff = keyed(&world, &["--trusted-proxies", "127.0.0.1"]).await;
    let post = async |from: &str, key: &str, headers: &[(&str, &str)]| {
        let request = Client::new().post(bff.http("/api/notifications")).bearer_auth(key);
        let request = request.header("x-forwarded-for", from).json(&json!({ "body": "b" }));
        headers.iter().fold(request, |all, (name, value)| all.header(*name, *value)).send().await.unwrap()
    };
    for n in 0..30 {
        // A signature that is not good does not hide that a key was guessed.
        let signed: &[_] = if n % 2 == 0 { &[] } else { &[("webhook-id", "a")] };
        assert_eq!(post("192.0.2.1", &format!("guess-{n}"), signed).await.status(), 401, "{n}");
    }
    for key in ["one more", ALL] {
        let answer = post("192.0.2.1", key, &[]).await;
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS, "{key}");
        let wait: u64 = answer.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
    assert_eq!(post("192.0.2.2", ALL, &[]).await.status(), 202, "another address");
    assert!(bff.metric("carillon_keys_refused_total", "unknown").await > 29.5);
    assert!(bff.metric("carillon_limits_reached_total", "key_guesses").await > 0.5);
    let line = bff.process.wait_line("too many wrong keys").await;
    assert!(line.contains("192.0.2.1") && !line.contains("guess-"), "{line}");
}

#[tokio::test]
async fn clients_without_an_address_keep_valid_keys_despite_wrong_ones() {
    let world = World::new();
    let bff = keyed(&world, &[]).await;
    // Programs of this machine, and those behind a proxy that is not known here.
    for from in [&[][..], &[("x-forwarded-for", "192.0.2.1")]] {
        let put = async |key: &str| {
            let request =
                Client::new().put(bff.http("/api/users/ann/state")).bearer_auth(key).json(&json!({}));
            let request = from.iter().fold(request, |all, (name, value)| all.header(*name, *value));
            request.send().await.unwrap().status().as_u16()
        };
        for n in 0..30 {
            assert_eq!(put(&format!("guess-{n}")).await, 401);
        }
        assert_eq!((put("one more").await, put(ALL).await), (429, 204), "{from:?}");
    }
}

#[tokio::test]
async fn the_demo_signs_in_clients_on_this_machine_and_logs_that() {
    let world = World::new();
    let ask = async |bff: &Bff, host: &str| {
        let request = Client::new().post(bff.http("/api/demo/token")).header(header::HOST, host);
        let status = request.json(&json!({ "user": "admin" })).send().await.unwrap().status().as_u16();
        let on = Client::new().get(bff.http("/api/demo")).header(header::HOST, host).send().await.unwrap();
        (status, on.status().as_u16())
    };
    let options = ["--demo-sign-in", "--jwt-secret", SECRET];
    let mut near = Bff::spawn("bff-1", &world.redis.url(), &options);
    near.until_ready().await;
    near.process.wait_line("any client on this machine may sign in under any name").await;
    assert_eq!(ask(&near, "localhost").await, (200, 204));
    assert_eq!(ask(&near, "evil.example:8470").await, (403, 200), "a page whose name was led here");
    let exposed = [&options[..], &["--demo-sign-in-exposed"]].concat();
    let mut far = Bff::spawn("bff-2", &world.redis.url(), &exposed);
    far.until_ready().await;
    far.process.wait_line("any client that reaches this replica may sign in under any name").await;
    assert_eq!(ask(&far, "demo.example").await, (200, 204));
    let output = Command::new(env!("CARGO_BIN_EXE_bff"))
        .args([&options[..], &["--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"]].concat())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("DEMO_SIGN_IN_EXPOSED"), "{error}");
}

#[test]
fn a_replica_does_not_start_with_a_key_that_can_be_guessed() {
    for (keys, says) in [("a", "at least 16 bytes"), ("shop:write:the-secret-that-publishes", "scopes are")] {
        let output = Command::new(env!("CARGO_BIN_EXE_bff"))
            .args(["--api-key", keys, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(says) && error.contains("API_KEY"), "{error}");
    }
}

#[tokio::test]
async fn an_empty_option_is_absent() {
    let world = World::new();
    let empty =
        ["LISTEN", "PORT", "API_KEY", "REPLICA", "FANOUT", "READERS_MAX", "JWT_SECRET", "TOKEN_LIFETIME_MAX"];
    let (url, admin) = (world.redis.url(), format!("127.0.0.1:{}", carillon_harness::free_port()));
    let listen = format!("127.0.0.1:{}", carillon_harness::free_port());
    let env: Vec<_> = empty.iter().map(|name| (*name, "")).chain([("REDIS_URL", url.as_str())]).collect();
    let args = ["--listen", &listen, "--admin-listen", &admin];
    let mut process = carillon_harness::Process::spawn(env!("CARGO_BIN_EXE_bff"), &args, &env);
    process.wait_line("starting").await;
    let bff = world.bff("bff-1").await;
    let get = Client::new().get(bff.http("/api/notifications"));
    let get =
        get.header("last-event-id", "").header("carillon-session", " ").header("authorization", "Bearer ");
    assert_eq!(get.send().await.unwrap().status(), 200);
    let opened = Client::new().post(bff.http("/api/sessions?session=")).header("carillon-session", "");
    assert_eq!(opened.send().await.unwrap().status(), 201);
}
