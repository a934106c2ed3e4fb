//! Requests that an application signed are accepted once, and from no one else.

use axum::http::Method;
use carillon_auth::signature::{ApiAuthSecrets, Digest, Unsigned, WebhookSecrets};
use carillon_bff::now_ms;
use carillon_harness::Reader;
use carillon_protocol::limits::ENTRY_MAX_BYTES;
use reqwest::Client;
use serde_json::Value;

use crate::limits::until_counted;
use crate::people::KEY;
use crate::world::{Bff, World, entry};

const FIRST: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const SECOND: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const FOREIGN: &str = "whsec_Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";
const LEGACY: &str = "the text that both ends have";
const PATH: &str = "/api/notifications";
const JSON: &str = "application/json";

type Headers = [(&'static str, String); 3];

fn webhook(secret: &str, id: &str, at_ms: u64, body: &str) -> Headers {
    secret.parse::<WebhookSecrets>().unwrap().sign(id, at_ms, body.as_bytes()).unwrap()
}

fn api_auth(secret: &str, at_ms: u64, body: &str) -> Headers {
    let request = Unsigned { method: &Method::POST, path: PATH, content_type: JSON, body: body.as_bytes() };
    let secrets: ApiAuthSecrets = secret.parse().unwrap();
    secrets.sign(Digest::Sha1, "concierge", request, at_ms).unwrap()
}

/// Status, and the body as JSON.
async fn post(bff: &Bff, headers: &Headers, body: &str) -> (u16, Value) {
    let request = Client::new().post(bff.http(PATH)).header("content-type", JSON).body(body.to_owned());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn accepted(bff: &Bff, headers: &Headers, body: &str) -> String {
    let (status, body) = post(bff, headers, body).await;
    assert_eq!(status, 202, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn refused(bff: &Bff, headers: &Headers, body: &str, word: &str) {
    let (status, problem) = post(bff, headers, body).await;
    assert_eq!((status, &problem["title"]), (401, &"invalid signature".into()), "{word}: {problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(word), "{word}: {detail}");
}

async fn two(world: &World, args: &[&str]) -> [Bff; 2] {
    let bffs = ["bff-1", "bff-2"].map(|name| Bff::spawn(name, &world.redis.url(), args));
    for bff in &bffs {
        bff.until_ready().await;
    }
    bffs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_counts_as_a_key_once_on_all_replicas_while_it_is_fresh() {
    let world = World::new();
    let [here, there] = two(&world, &["--webhook-secret", &format!("{FIRST},{SECOND}")]).await;
    let reader = Reader::connect(&there.ws()).await;
    let (now_ms, body) = (now_ms(), r#"{"body":"signed"}"#);

    let signed = webhook(FIRST, "msg_1", now_ms, body);
    assert_eq!(accepted(&here, &signed, body).await, "msg_1");
    refused(&there, &signed, body, "used before").await;
    refused(&here, &signed, body, "used before").await;
    // The sender, without a response, retries: it is accepted, with the same response, and shown once.
    let again = webhook(FIRST, "msg_1", now_ms + 1_000, body);
    assert_eq!(accepted(&there, &again, body).await, "msg_1");

    let fresh = webhook(FIRST, "msg_2", now_ms, body);
    refused(&here, &fresh, r#"{"body":"Signed"}"#, "does not match").await;
    let mut renamed = fresh.clone();
    renamed[0].1 = "msg_3".to_owned();
    refused(&here, &renamed, body, "does not match").await;
    refused(&here, &webhook(FOREIGN, "msg_2", now_ms, body), body, "does not match").await;
    refused(&here, &webhook(FIRST, "msg_2", now_ms - 330_000, body), body, "ago").await;
    refused(&here, &webhook(FIRST, "msg_2", now_ms + 330_000, body), body, "in the future").await;
    // None of these refusals used the good one up, nor does a body that is no notification.
    let bad = webhook(FIRST, "msg_2", now_ms, "{}");
    assert_eq!(post(&here, &bad, "{}").await.0, 400);
    accepted(&here, &fresh, body).await;
    // Its secret is changed: the old one and the new one are good, and so is both at once.
    accepted(&there, &webhook(SECOND, "msg_4", now_ms, body), body).await;
    let both = format!("{FOREIGN},{SECOND}");
    accepted(&there, &webhook(&both, "msg_5", now_ms, body), body).await;

    accepted(&here, &webhook(FIRST, "msg_6", now_ms, &entry("own")), &entry("own")).await;
    let ids: Vec<_> = reader.wait_for(5).await.into_iter().map(|one| one.id).collect();
    assert_eq!(ids, ["msg_1", "msg_2", "msg_4", "msg_5", "own"]);
    assert!(here.metric("carillon_signatures_refused_total", "reason=\"no_match\"").await > 2.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_auth_signature_counts_once_where_it_is_configured() {
    let world = World::new();
    let secrets = format!("another text of sixteen bytes,{LEGACY}");
    let [here, there] = two(&world, &["--apiauth-secret", &secrets]).await;
    let reader = Reader::connect(&there.ws()).await;
    let (now_ms, body) = (now_ms(), entry("legacy"));

    let signed = api_auth(LEGACY, now_ms, &body);
    assert_eq!(accepted(&here, &signed, &body).await, "legacy");
    refused(&there, &signed, &body, "used before").await;
    refused(&here, &signed, &body, "used before").await;
    // The access id is not signed: another one makes no other request of it.
    let mut renamed = signed.clone();
    renamed[0].1 = renamed[0].1.replace("concierge", "somebody");
    refused(&there, &renamed, &body, "used before").await;

    let body = entry("second");
    let fresh = api_auth(LEGACY, now_ms, &body);
    refused(&here, &fresh, &entry("Second"), "content hash").await;
    refused(&here, &api_auth("a text that nobody else has", now_ms, &body), &body, "does not match").await;
    refused(&here, &api_auth(LEGACY, now_ms - 930_000, &body), &body, "ago").await;
    refused(&here, &api_auth(LEGACY, now_ms + 930_000, &body), &body, "in the future").await;
    // A body with a hash of its own, under a signature of another.
    let mut moved = fresh.clone();
    moved[2] = api_auth(LEGACY, now_ms, &entry("third"))[2].clone();
    refused(&here, &moved, &entry("third"), "does not match").await;
    accepted(&there, &fresh, &body).await;
    let ids: Vec<_> = reader.wait_for(2).await.into_iter().map(|one| one.id).collect();
    assert_eq!(ids, ["legacy", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_without_a_secret_is_refused_and_a_secret_ends_open_access() {
    let world = World::new();
    let (now_ms, body) = (now_ms(), entry("a"));
    let (webhook, api_auth) = (webhook(FIRST, "a", now_ms, &body), api_auth(LEGACY, now_ms, &body));
    // Any client may publish here, and still a signed request is refused if it cannot be verified.
    let open = world.bff("bff-1").await;
    refused(&open, &webhook, &body, "WEBHOOK_SECRET").await;
    refused(&open, &api_auth, &body, "APIAUTH_SECRET").await;
    // Without a signature there is nothing left to get in by, on loopback too.
    let closed = Bff::spawn("bff-2", &world.redis.url(), &["--webhook-secret", FIRST]);
    closed.until_ready().await;
    refused(&closed, &api_auth, &body, "APIAUTH_SECRET").await;
    let unsigned = Client::new().post(closed.http(PATH)).header("content-type", JSON).body(body.clone());
    assert_eq!(unsigned.send().await.unwrap().status(), 401);
    accepted(&closed, &webhook, &body).await;
    // Who has a key needs no signature, whatever other headers a sender adds.
    let keyed = Bff::spawn("bff-3", &world.redis.url(), &["--api-key", KEY]);
    keyed.until_ready().await;
    let request = Client::new().post(keyed.http(PATH)).bearer_auth(KEY).header("webhook-id", "a");
    let answer = request.header("content-type", JSON).body(body).send().await.unwrap();
    assert_eq!(answer.status(), 202);
}

#[tokio::test]
async fn signers_share_a_limit_that_invalid_signatures_do_not_use() {
    let world = World::new();
    let options = ["--webhook-secret", FIRST, "--publishes-per-key", "1", "--publish-burst-per-key", "2"];
    let [bff, _] = two(&world, &options).await;
    let (now_ms, body) = (now_ms(), r#"{"body":"signed"}"#);
    for n in 0..20 {
        let forged = webhook(FOREIGN, &format!("forged_{n}"), now_ms, body);
        refused(&bff, &forged, body, "does not match").await;
    }
    accepted(&bff, &webhook(FIRST, "msg_0", now_ms, body), body).await;
    let mut last = 202;
    for n in 1..40 {
        last = post(&bff, &webhook(FIRST, &format!("msg_{n}"), now_ms, body), body).await.0;
        if last != 202 {
            break;
        }
    }
    assert_eq!(last, 429);
    until_counted(&bff, "publishes_per_key").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_beside_a_signature_is_counted_once_however_the_request_ends() {
    let world = World::new();
    let options = ["--trusted-proxies", "127.0.0.1", "--webhook-secret", FIRST, "--api-key", KEY];
    let [bff, _] = two(&world, &options).await;
    let (now_ms, body, large) = (now_ms(), r#"{"body":"signed"}"#, "x".repeat(ENTRY_MAX_BYTES + 1));
    let post = async |from: u8, secret: &str, kind: &str, body: &str| {
        let request = Client::new().post(bff.http(PATH)).bearer_auth("no key of ours");
        let request =
            request.header("x-forwarded-for", format!("192.0.2.{from}")).header("content-type", kind);
        let signed = webhook(secret, "msg", now_ms, body);
        let request = signed.iter().fold(request, |request, (name, value)| request.header(*name, value));
        request.body(body.to_owned()).send().await.unwrap().status().as_u16()
    };
    let counted = async || bff.metric("carillon_keys_refused_total", "unknown").await;
    for (from, secret, kind, body, status, guesses) in [
        (1, FIRST, "text/plain", body, 415, 1.0),
        (2, FIRST, JSON, large.as_str(), 413, 1.0),
        (3, FOREIGN, JSON, body, 401, 1.0),
        // Beside a good signature it is no guess: some gateways add a header of their own.
        (4, FIRST, JSON, body, 202, 0.0),
    ] {
        let before = counted().await;
        assert_eq!(post(from, secret, kind, body).await, status);
        let more = counted().await - before;
        assert!((more - guesses).abs() < 0.5, "{more} after {status}");
    }
    for _ in 1..30 {
        assert_eq!(post(1, FIRST, "text/plain", body).await, 415);
    }
    assert_eq!(post(1, FIRST, "text/plain", body).await, 429);
}
