//! Revocation of sessions, of one or of all at once.

use carillon_harness::{DialOptions, Process, Refused, Socket, eventually};
use carillon_protocol::{CloseCode, ServerMessage};
use reqwest::Client;
use serde_json::{Value, json};

use crate::people::{KEY, people};
use crate::world::{Bff, DEADLINE, World};

/// A socket of a session, its token and its id.
async fn opened(bff: &Bff) -> (Socket, String, String) {
    let opened: Value =
        Client::new().post(bff.http("/api/sessions")).send().await.unwrap().json().await.unwrap();
    let token = opened["session"].as_str().unwrap().to_owned();
    let mut socket = open(bff, &token).await.unwrap();
    assert!(matches!(ServerMessage::parse(&socket.text().await).unwrap(), ServerMessage::Welcome(_)));
    (socket, token, opened["id"].as_str().unwrap().to_owned())
}

async fn open(bff: &Bff, session: &str) -> Result<Socket, u16> {
    let url = format!("{}?session={session}", bff.ws());
    match Socket::open(&url, &DialOptions::default()).await {
        Ok(socket) => Ok(socket),
        Err(Refused::Status(status, _)) => Err(status),
        Err(other) => panic!("{other:?} was not expected"),
    }
}

async fn is_closed_to(bff: &Bff, session: &str) {
    let name = format!("{} lets it in no more", bff.name);
    eventually(&name, DEADLINE, async || open(bff, session).await.err() == Some(401)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_session_ends_on_every_replica_and_no_other_does() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let (mut here, token, id) = opened(&bffs[0]).await;
    let mut there = open(&bffs[1], &token).await.unwrap();
    let (mut other, others, _) = opened(&bffs[1]).await;
    let revoke = async |body: Value| {
        let request = Client::new().post(bffs[0].http("/api/revocations")).bearer_auth(KEY);
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    for wrong in [json!({"session": token}), json!({"session": "x"}), json!({"session": id, "user": "ann"})] {
        assert_eq!(revoke(wrong.clone()).await, 400, "{wrong}");
    }
    assert_eq!(revoke(json!({ "session": id })).await, 204);
    for socket in [&mut here, &mut there] {
        assert_eq!(socket.until_closed().await.1, Some(CloseCode::REFUSED));
    }
    for bff in &bffs {
        is_closed_to(bff, &token).await;
        let jobs = Client::new().get(bff.http("/api/jobs")).header("carillon-session", &token);
        assert_eq!(jobs.send().await.unwrap().status(), 401);
    }
    other.send(r#"{"type":"ping"}"#).await;
    assert!(other.text().await.contains("heartbeat"), "the other one goes on");
    assert!(open(&bffs[0], &others).await.is_ok());
    // One that starts later reads it.
    let later = people(&world, 1).await;
    is_closed_to(&later[0], &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_ends_all_sessions_and_the_old_key_is_not_restored() {
    let world = World::alone();
    let bffs = people(&world, 2).await;
    let (mut here, token, _) = opened(&bffs[0]).await;
    let mut there = open(&bffs[1], &token).await.unwrap();
    let kept = "{Notification-List}:session_key";
    let old = world.redis.cli(&["GET", kept]);
    let args = ["rotate-session-key", "--redis-url", &world.redis.url()];
    let mut rotate = Process::spawn(env!("CARGO_BIN_EXE_bff"), &args, &[]);
    assert_eq!(rotate.wait_exit(DEADLINE).await, 0, "{:?}", rotate.stderr());
    for socket in [&mut here, &mut there] {
        assert_eq!(socket.until_closed().await.1, Some(CloseCode::REFUSED));
    }
    for bff in &bffs {
        is_closed_to(bff, &token).await;
    }
    let (_socket, fresh, _) = opened(&bffs[0]).await;
    assert!(open(&bffs[1], &fresh).await.is_ok(), "sessions that begin now are opened everywhere");
    // Redis loses it: what comes back is the new one.
    world.redis.run(&["DEL", kept]);
    world.redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("the key is back", DEADLINE, async || !world.redis.cli(&["GET", kept]).is_empty()).await;
    assert_ne!(world.redis.cli(&["GET", kept]), old);
    for bff in &bffs {
        assert!(open(bff, &fresh).await.is_ok());
        is_closed_to(bff, &token).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_cannot_be_revoked_stays_and_the_reason_is_shown() {
    let world = World::new();
    let rotate = async || {
        let args = ["rotate-session-key", "--redis-url", &world.redis.url()];
        let mut rotate = Process::spawn(env!("CARGO_BIN_EXE_bff"), &args, &[]);
        (rotate.wait_exit(DEADLINE).await, rotate.stderr().join("\n"))
    };
    let kept = || world.redis.cli(&["GET", "{Notification-List}:session_key"]);
    let (code, error) = rotate().await;
    assert!(code != 0 && error.contains("Redis has no key of sessions"), "{code} {error}");
    assert_eq!(kept(), "", "and none was made");
    let bffs = people(&world, 1).await;
    let (mut socket, token, _) = opened(&bffs[0]).await;
    let before = kept();
    let fill = "for n = 1, 100000 do redis.call('ZADD', KEYS[1], 1, 'token:' .. n) end";
    world.redis.run(&["EVAL", fill, "1", "{Notification-List}:revocations"]);
    let (code, error) = rotate().await;
    assert!(code != 0 && error.contains("cannot be revoked") && error.contains("100000"), "{code} {error}");
    assert_eq!(kept(), before);
    socket.send(r#"{"type":"ping"}"#).await;
    assert!(socket.text().await.contains("heartbeat"), "sessions go on");
    // The script above keeps Redis busy, and a busy Redis may be a 503.
    eventually("the session still opens", DEADLINE, async || open(&bffs[0], &token).await.is_ok()).await;
    // The old ones go with the next revocation of a replica.
    let revoke = Client::new().post(bffs[0].http("/api/revocations")).bearer_auth(KEY);
    assert_eq!(revoke.json(&json!({"user": "ann"})).send().await.unwrap().status(), 204);
    let (code, error) = rotate().await;
    assert_eq!(code, 0, "{error}");
    assert_eq!(socket.until_closed().await.1, Some(CloseCode::REFUSED));
}
