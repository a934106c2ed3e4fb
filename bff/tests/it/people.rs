//! Authentication, and that every user gets their own notifications and no others.

use carillon_bff::now_ms;
use carillon_harness::{DialOptions, Reader, ReaderOptions, Refused, Signer, Socket, eventually};
use carillon_protocol::received;
use carillon_protocol::{CloseCode, ServerMessage};
use serde_json::{Value, json};

use crate::world::{Bff, DEADLINE, World, entry};

pub(crate) const SECRET: &str = "a secret of more than thirty-two bytes";
pub(crate) const KEY: &str = "key-of-the-tests";

/// The options of a replica with users.
pub(crate) const PEOPLE: [&str; 5] = ["--jwt-secret", SECRET, "--api-key", KEY, "--people-send"];

/// A token with these claims beside `exp`, an hour from now, and `iat`.
pub(crate) fn token_with(secret: &str, claims: Value) -> String {
    let now_s = now_ms() / 1_000;
    let mut all = json!({ "exp": now_s + 3_600, "iat": now_s });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    Signer::secret(secret).token(&all)
}

pub(crate) fn token(user: &str) -> String {
    token_with(SECRET, json!({ "user_id": user }))
}

pub(crate) fn signed_in(bff: &Bff, user: &str) -> String {
    format!("{}?token={}", bff.ws(), token(user))
}

fn to(audience: Value, id: &str) -> String {
    json!({ "id": id, "body": "b", "to": audience }).to_string()
}

pub(crate) async fn people(world: &World, count: usize) -> Vec<Bff> {
    people_with(world, count, &[]).await
}

/// The same with more options.
pub(crate) async fn people_with(world: &World, count: usize, options: &[&str]) -> Vec<Bff> {
    let options = [&PEOPLE[..], options].concat();
    let spawn = |n| Bff::spawn(&format!("bff-{n}"), &world.redis.url(), &options);
    let bffs: Vec<_> = (1..=count).map(spawn).collect();
    for bff in &bffs {
        bff.until_ready().await;
    }
    bffs
}

async fn refused(url: &str) -> (u16, Value) {
    match Socket::open(url, &DialOptions::default()).await {
        Err(Refused::Status(status, body)) => (status, serde_json::from_str(&body).unwrap()),
        other => panic!("{other:?} was not expected"),
    }
}

async fn welcome(socket: &mut Socket) -> carillon_protocol::Welcome {
    match ServerMessage::parse(&socket.text().await).unwrap() {
        ServerMessage::Welcome(welcome) => welcome,
        other => panic!("{other:?} was not expected"),
    }
}

async fn open(url: &str) -> Socket {
    Socket::open(url, &DialOptions::default()).await.unwrap()
}

fn of_error(text: &str) -> (String, Option<String>) {
    match ServerMessage::parse(text).unwrap() {
        ServerMessage::Error(received::Refused { code, about, .. }) => (code, about),
        other => panic!("{other:?} was not expected"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_s_notification_reaches_all_their_tabs_and_no_other_user() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let (one, two) = (signed_in(&bffs[0], "ann"), signed_in(&bffs[1], "ann"));
    let (here, there) = (Reader::connect(&one).await, Reader::connect(&two).await);
    let (ben, nobody) =
        (Reader::connect(&signed_in(&bffs[0], "ben")).await, Reader::connect(&bffs[1].ws()).await);
    assert_eq!(here.record().welcomes[0].user.as_deref(), Some("ann"));
    assert_eq!(nobody.record().welcomes[0].user, None);
    world.push([to(json!({"user": "ann"}), "for-ann"), entry("for-all")]).await;
    for reader in [&here, &there] {
        reader.wait_for(2).await;
        assert_eq!(reader.record().ids(), ["for-ann", "for-all"]);
    }
    for reader in [&ben, &nobody] {
        reader.wait_for(1).await;
        assert_eq!(reader.record().ids(), ["for-all"]);
    }
    // Notifications that arrived while the user was offline are there later.
    let since = here.record().received[0].cursor.clone();
    drop((here, there));
    world.push([to(json!({"user": "ann"}), "while-away")]).await;
    let back =
        Reader::connect_with(ReaderOptions { since: Some(since), ..ReaderOptions::new(&[&two]) }).await;
    back.wait_for(2).await;
    assert_eq!(back.record().ids(), ["for-all", "while-away"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_token_is_refused_before_the_upgrade_with_a_reason() {
    let world = World::new();
    let bff = &people(&world, 1).await[0];
    let now_s = now_ms() / 1_000;
    let none = "eyJhbGciOiJub25lIn0.eyJ1c2VyX2lkIjoiYW5uIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    for (what, token, word) in [
        ("forged", token_with("another secret of thirty-two bytes!", json!({"user_id": "ann"})), "signature"),
        ("expired", token_with(SECRET, json!({"user_id": "ann", "exp": now_s - 600})), "expired"),
        ("not yet", token_with(SECRET, json!({"user_id": "ann", "nbf": now_s + 600})), "not valid yet"),
        ("another's", token_with(SECRET, json!({"user_id": "ann", "aud": "elsewhere"})), "aud"),
        ("for ever", token_with(SECRET, json!({"user_id": "ann", "exp": now_s + 90 * 86_400})), "30 days"),
        ("nobody's", token_with(SECRET, json!({"name": "ann"})), "user_id"),
        ("unsigned", none.to_owned(), "JWT"),
        ("no token", "nonsense".to_owned(), "JWT"),
    ] {
        let (status, problem) = refused(&format!("{}?token={token}", bff.ws())).await;
        assert_eq!(status, 401, "{what}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(word), "{what}: {detail}");
        assert!(!detail.contains("ann"), "{what}: {detail}");
    }
    let answer = reqwest::Client::new().get(bff.http("/sse")).bearer_auth("nonsense").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], r#"Bearer error="invalid_token""#);
    // Without a key to verify it, a token is refused and not ignored: its sender meant to sign in.
    let plain = world.bff("bff-2").await;
    let (status, problem) = refused(&signed_in(&plain, "ann")).await;
    assert_eq!(
        (status, problem["detail"].as_str().unwrap().contains("no key to verify tokens")),
        (401, true)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_whose_key_cannot_be_fetched_gets_a_503() {
    let world = World::new();
    let nobody = format!("http://127.0.0.1:{}/keys", carillon_harness::free_port());
    let bff = Bff::spawn("bff-1", &world.redis.url(), &["--jwks-url", &nobody]);
    bff.until_ready().await;
    let token = Signer::p256().token(&json!({"user_id": "ann", "exp": now_ms() / 1_000 + 60}));
    let (status, problem) = refused(&format!("{}?token={token}", bff.ws())).await;
    assert_eq!((status, &problem["title"]), (503, &json!("token verification unavailable")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_an_end_is_valid_where_allowed_until_revoked() {
    let world = World::new();
    let bff = &people_with(&world, 1, &["--token-lifetime-max", "none"]).await[0];
    let endless = Signer::secret(SECRET).token(&json!({"user_id": "ann", "iat": now_ms() / 1_000}));
    let url = format!("{}?token={endless}", bff.ws());
    let mut socket = open(&url).await;
    assert_eq!(welcome(&mut socket).await.user.as_deref(), Some("ann"));
    socket.send(r#"{"type":"ping"}"#).await;
    while !socket.text().await.contains("heartbeat") {}
    let revoke = reqwest::Client::new().post(bff.http("/api/revocations")).bearer_auth(KEY);
    assert_eq!(revoke.json(&json!({"user": "ann"})).send().await.unwrap().status(), 204);
    assert_eq!(socket.until_closed().await.1, Some(CloseCode::REFUSED));
    assert_eq!(refused(&url).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_may_not_connect() {
    let world = World::new();
    let bff = &people(&world, 1).await[0];
    let from = |origin: &str| DialOptions {
        headers: vec![("origin".into(), origin.into())],
        ..DialOptions::default()
    };
    let foreign = Socket::open(&bff.ws(), &from("https://elsewhere.example")).await;
    assert!(matches!(foreign, Err(Refused::Status(403, _))), "{foreign:?}");
    let own = Socket::open(&bff.ws(), &from(&bff.http(""))).await;
    assert!(own.is_ok(), "{own:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_closes_when_its_token_expires_unless_it_was_refreshed() {
    let world = World::new();
    let bff = &people(&world, 1).await[0];
    // Tokens are valid for some seconds after their exp, since clocks differ.
    let soon = || token_with(SECRET, json!({"user_id": "ann", "exp": now_ms() / 1_000 - 27}));
    let url = format!("{}?token={}", bff.ws(), soon());
    let (mut expires, mut refreshed) = (open(&url).await, open(&url).await);
    welcome(&mut refreshed).await;
    refreshed.send(&json!({"type": "token", "token": token("ben")}).to_string()).await;
    assert_eq!(of_error(&next_error(&mut refreshed).await).0, "forbidden");
    refreshed.send(&json!({"type": "token", "token": token("ann")}).to_string()).await;
    assert_eq!(expires.until_closed().await.1, Some(CloseCode::TOKEN_EXPIRED));
    refreshed.send(r#"{"type":"ping"}"#).await;
    loop {
        if let ServerMessage::Heartbeat(_) = ServerMessage::parse(&refreshed.text().await).unwrap() {
            break;
        }
    }
}

async fn next_error(socket: &mut Socket) -> String {
    loop {
        let text = socket.text().await;
        if matches!(ServerMessage::parse(&text).unwrap(), ServerMessage::Error(_)) {
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_a_token_may_be_subscribed_in_mid_stream() {
    let world = World::new();
    let mut args = PEOPLE.to_vec();
    args.extend(["--public-topics", "news,open.*"]);
    let bff = Bff::spawn("bff-1", &world.redis.url(), &args);
    bff.until_ready().await;
    let (status, _) = refused(&format!("{}?topic=secret", bff.ws())).await;
    assert_eq!(status, 403);
    let token = token_with(SECRET, json!({"user_id": "ann", "topics": ["secret"]}));
    let reader = Reader::connect(&format!("{}?topic=news&token={token}", bff.ws())).await;
    world.push([to(json!({"topic": "news"}), "n-1"), to(json!({"topic": "secret"}), "s-1")]).await;
    reader.wait_for(1).await;
    reader.send(r#"{"type":"subscribe","topic":"secret"}"#).await;
    reader.send(r#"{"type":"subscribe","topic":"closed"}"#).await;
    reader.until("a refusal", |record| !record.errors.is_empty()).await;
    world.push([to(json!({"topic": "secret"}), "s-2"), to(json!({"topic": "closed"}), "c-1")]).await;
    reader.until("the topic", |record| record.ids().contains(&"s-2")).await;
    reader.send(r#"{"type":"unsubscribe","topic":"secret"}"#).await;
    reader.send("{\"type\":\"subscribe\",\"topic\":\"open.door\"}").await;
    reader.send(r#"{"type":"subscribe","topic":"closed"}"#).await;
    reader.until("a second refusal", |record| record.errors.len() == 2).await;
    let last = [to(json!({"topic": "secret"}), "s-3"), to(json!({"topic": "open.door"}), "o-1")];
    world.push(last).await;
    reader.until("the open topic", |record| record.ids().contains(&"o-1")).await;
    let record = reader.record();
    // Earlier entries of the topic are in history, and not for this stream: it begins at the reader's position.
    let ids: Vec<_> = record.ids().into_iter().filter(|id| *id != "s-1").collect();
    assert_eq!(ids, ["n-1", "s-2", "o-1"]);
    assert!(record.errors.iter().all(|(code, _)| code == "forbidden"), "{:?}", record.errors);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_survives_a_reload_on_another_replica() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let mut socket = open(&format!("{}?session=new", bffs[0].ws())).await;
    let first = welcome(&mut socket).await;
    let session = first.session.unwrap();
    let cursor = first.cursor;
    socket.cut();
    let answer =
        reqwest::Client::new().post(bffs[1].http("/api/sessions")).header("carillon-session", &session);
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    let id = answer["id"].as_str().unwrap();
    world.push([to(json!({"session": id}), "job-done")]).await;
    let mut socket = open(&format!("{}?session={session}&since={cursor}", bffs[1].ws())).await;
    assert_eq!(welcome(&mut socket).await.session.as_deref(), Some(session.as_str()));
    assert!(socket.text().await.contains("job-done"));
    // The id alone opens nothing, and neither does a changed token.
    let mut touched = session.clone().into_bytes();
    touched[60] ^= 1;
    for guess in [id.to_owned(), String::from_utf8(touched).unwrap(), "x".repeat(98)] {
        let (status, _) = refused(&format!("{}?session={guess}", bffs[0].ws())).await;
        assert_eq!(status, 401, "{guess}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_close_of_an_old_socket_does_not_affect_a_new_one() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let mut first = open(&format!("{}?session=new", bffs[0].ws())).await;
    let session = welcome(&mut first).await.session.unwrap();
    let answer = reqwest::Client::new().post(bffs[0].http("/api/sessions"));
    let opened: Value =
        answer.header("carillon-session", &session).send().await.unwrap().json().await.unwrap();
    let id = opened["id"].as_str().unwrap();
    // The page was loaded again, twice, while the first socket is not known to be gone; and in another tab.
    let urls = [&bffs[0], &bffs[0], &bffs[1]].map(|bff| format!("{}?session={session}", bff.ws()));
    let new = Reader::connect(&urls[0]).await;
    let mut second = open(&urls[1]).await;
    welcome(&mut second).await;
    let tab = Reader::connect(&urls[2]).await;
    let mut expected = Vec::new();
    let mut heard_by_all = async |n: usize| {
        expected.push(format!("n-{n}"));
        world.push([to(json!({"session": id}), &format!("n-{n}"))]).await;
        for reader in [&new, &tab] {
            reader.wait_for(n).await;
            assert_eq!(reader.record().ids(), expected);
        }
    };
    heard_by_all(1).await;
    // Those before it go late, one with a close frame and one without.
    let open_sockets = async || {
        let joined = bffs[0].metric("carillon_readers_joined_total", "").await;
        joined - bffs[0].metric("carillon_readers_left_total", "").await
    };
    first.close().await;
    eventually("the first is gone", DEADLINE, async || open_sockets().await < 2.5).await;
    heard_by_all(2).await;
    second.cut();
    eventually("the second is gone", DEADLINE, async || open_sockets().await < 1.5).await;
    heard_by_all(3).await;
    for reader in [&new, &tab] {
        let record = reader.record();
        assert_eq!((record.welcomes.len(), record.closes.len(), record.repeated), (1, 0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_reached_by_the_id_of_its_welcome_from_any_replica() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let (mine, other) = (Reader::connect(&bffs[0].ws()).await, Reader::connect(&bffs[1].ws()).await);
    let connection = mine.record().welcomes[0].connection.clone();
    world.push([to(json!({"connection": connection}), "mine"), entry("all")]).await;
    mine.wait_for(2).await;
    other.wait_for(1).await;
    assert_eq!(other.record().ids(), ["all"]);
    assert!(mine.record().ids().contains(&"mine"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_closes_the_sockets_of_a_user_everywhere_and_holds_for_later_ones() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let old = token_with(SECRET, json!({"user_id": "ann", "iat": now_ms() / 1_000 - 100}));
    let single = token_with(SECRET, json!({"user_id": "ben", "jti": "t-1", "iat": now_ms() / 1_000 - 100}));
    let url = |bff: &Bff, token: &str| format!("{}?token={token}", bff.ws());
    let mut socket = open(&url(&bffs[1], &old)).await;
    let mut ben = open(&url(&bffs[0], &single)).await;
    let other = Reader::connect(&signed_in(&bffs[1], "ben")).await;
    let revoke = |body: Value, key: &'static str| {
        reqwest::Client::new().post(bffs[0].http("/api/revocations")).bearer_auth(key).json(&body).send()
    };
    assert_eq!(revoke(json!({"user": "ann"}), "wrong").await.unwrap().status(), 401);
    assert_eq!(revoke(json!({"user": "ann", "token": "x"}), KEY).await.unwrap().status(), 400);
    assert_eq!(revoke(json!({"user": "ann"}), KEY).await.unwrap().status(), 204);
    assert_eq!(socket.until_closed().await.1, Some(CloseCode::REFUSED));
    assert_eq!(revoke(json!({"token": "t-1"}), KEY).await.unwrap().status(), 204);
    assert_eq!(ben.until_closed().await.1, Some(CloseCode::REFUSED));
    for bff in &bffs {
        assert_eq!(refused(&url(bff, &old)).await.0, 401);
        assert_eq!(refused(&url(bff, &single)).await.0, 401);
    }
    // Another token of the same user is valid, and other users are still connected.
    let later = token_with(SECRET, json!({"user_id": "ann", "iat": now_ms() / 1_000 + 2}));
    Reader::connect(&url(&bffs[0], &later)).await;
    assert_eq!(other.record().closes, []);
    // A replica that starts later knows too.
    let late = Bff::spawn("bff-3", &world.redis.url(), &PEOPLE);
    late.until_ready().await;
    assert_eq!(refused(&url(&late, &old)).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_cut_off_during_a_revocation_closes_sockets_later() {
    let world = World::alone();
    let network = carillon_harness::Proxy::start(world.redis.addr()).await;
    let far = Bff::spawn("bff-far", &format!("redis://{}", network.addr()), &PEOPLE);
    far.until_ready().await;
    let near = &people(&world, 1).await[0];
    let old = token_with(SECRET, json!({"user_id": "ann", "iat": now_ms() / 1_000 - 100}));
    let mut socket = open(&format!("{}?token={old}", far.ws())).await;
    welcome(&mut socket).await;
    network.refuse();
    network.cut();
    far.until_not_ready().await;
    let revoke = reqwest::Client::new()
        .post(near.http("/api/revocations"))
        .bearer_auth(KEY)
        .json(&json!({"user": "ann"}))
        .send();
    assert_eq!(revoke.await.unwrap().status(), 204);
    network.pass();
    assert_eq!(socket.until_closed().await.1, Some(CloseCode::REFUSED));
}
