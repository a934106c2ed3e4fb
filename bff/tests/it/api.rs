use carillon_broker::{Broker, FanOut, Names};
use carillon_harness::{Reader, RedisServer, eventually};
use carillon_protocol::Problem;
use carillon_protocol::http::Page;
use carillon_protocol::limits::WAITING_MAX_ENTRIES;
use reqwest::{Client, RequestBuilder, header};

use crate::world::{Bff, DEADLINE, World, entry};

const JSON: &str = "application/json";

fn post(bff: &Bff, content_type: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    Client::new().post(bff.http("/api/notifications")).header(header::CONTENT_TYPE, content_type).body(body)
}

/// Sends a request that must be refused, and returns the problem.
async fn refused(request: RequestBuilder, status: u16) -> Problem {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
    let problem: Problem = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(problem.status, status);
    problem
}

async fn id(request: RequestBuilder) -> String {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    body["id"].as_str().unwrap().to_owned()
}

async fn page(bff: &Bff, query: &str) -> Page {
    let answer = reqwest::get(bff.http(&format!("/api/notifications{query}"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn an_accepted_notification_arrives_once_with_its_bytes_and_id() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let reader = Reader::connect(&bff.ws()).await;
    let given = id(post(&bff, JSON, r#"{"title":"t","data":[1.10]}"#)).await;
    let own = id(post(&bff, "application/json; charset=utf-8", r#"{"id":"own","body":"b"}"#)).await;
    let again = id(post(&bff, JSON, r#"{"id":"own","body":"b"}"#)).await;
    let last = id(post(&bff, JSON, r#"{"body":"last"}"#)).await;
    assert_eq!((own.as_str(), again.as_str()), ("own", "own"), "a repeated id: the same answer");
    let received = reader.wait_for(3).await;
    assert_eq!(
        received.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(),
        [given.as_str(), "own", last.as_str()]
    );
    let page = page(&bff, "").await;
    assert!(page.items[0].notification.get().contains(r#""data":[1.10]"#));
    eventually("the repeat is counted", DEADLINE, async || {
        bff.metric("carillon_entries_repeated_total", "").await > 0.5
    })
    .await;
}

#[tokio::test]
async fn a_refusal_names_the_field_and_the_limit() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let body = format!(r#"{{"title":"{}","severity":"loud"}}"#, "x".repeat(201));
    let problem = refused(post(&bff, JSON, body), 400).await;
    let faults: Vec<_> = problem.errors.iter().map(|fault| (fault.field.as_str(), fault.limit)).collect();
    assert_eq!(faults, [("title", Some(200)), ("severity", None)]);
    refused(post(&bff, JSON, "{"), 400).await;
    refused(post(&bff, JSON, vec![0xff]), 400).await;
    refused(post(&bff, "text/plain", entry("a")), 415).await;
    refused(Client::new().post(bff.http("/api/notifications")), 415).await;
    refused(post(&bff, JSON, format!(r#"{{"body":"b","data":"{}"}}"#, "x".repeat(65_536))), 413).await;
    // Fits without its id and not with it.
    let just = format!(r#"{{"body":"b","data":"{}"}}"#, "x".repeat(65_536 - 23));
    assert!(just.len() <= 65_536);
    refused(post(&bff, JSON, just), 413).await;
    assert_eq!(world.broker.waiting().await.unwrap(), 0);
    assert!(page(&bff, "").await.items.is_empty());
}

#[tokio::test]
async fn publishing_on_an_exposed_address_needs_a_key_or_an_option() {
    let redis = RedisServer::shared();
    let exposed =
        |args: &[&str]| Bff::spawn("bff", &redis.url(), &[&["--listen", "0.0.0.0:0"], args].concat());
    // Port 0 is not known to the test, so the address is read from the log.
    let address = async |mut bff: Bff| {
        let line = bff.process.wait_line("starting").await;
        let port =
            line.split("listen=0.0.0.0:").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        (bff, format!("http://127.0.0.1:{port}/api/notifications"))
    };
    let request = |url: &str, key: Option<&str>| {
        let request = Client::new().post(url).header(header::CONTENT_TYPE, JSON).body(entry("a"));
        if let Some(key) = key { request.bearer_auth(key) } else { request }
    };

    let (_closed, url) = address(exposed(&[])).await;
    let problem = refused(request(&url, Some("")), 401).await;
    assert!(
        problem.detail.contains("API_KEY") && problem.detail.contains("ALLOW_PUBLISH"),
        "{}",
        problem.detail
    );
    let (_open, url) = address(exposed(&["--allow-publish"])).await;
    id(request(&url, None)).await;
    let (_keyed, url) = address(exposed(&["--api-key", "first-of-the-keys, second-of-the-keys"])).await;
    for wrong in [
        None,
        Some("third"),
        Some("first-of-the-key"),
        Some("first-of-the-keys, second-of-the-keys"),
        Some(""),
    ] {
        let answer = request(&url, wrong).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[header::WWW_AUTHENTICATE]),
            (401, &"Bearer".parse().unwrap()),
            "{wrong:?}"
        );
    }
    id(request(&url, Some("first-of-the-keys"))).await;
    id(request(&url, Some("second-of-the-keys"))).await;
    // A key counts on loopback too.
    let keyed = Bff::spawn("bff", &redis.url(), &["--api-key", "first-of-the-keys"]);
    keyed.until_ready().await;
    refused(post(&keyed, JSON, entry("a")), 401).await;
}

#[tokio::test]
async fn a_full_list_and_an_absent_redis_have_a_retry_after() {
    let world = World::alone();
    let bff = world.bff("bff-1").await;
    // Its claims fail, so the list fills up.
    world.redis.run(&["SET", "{Notification-List}:sequence", "no hash"]);
    for _ in 0..WAITING_MAX_ENTRIES / 1_000 {
        world.push((0..1_000).map(|_| "x".to_owned())).await;
    }
    let answer = post(&bff, JSON, entry("a")).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[header::RETRY_AFTER]),
        (503, &"1".parse().unwrap())
    );
    assert!(answer.text().await.unwrap().contains("list full"));
    world.redis.run(&["LPOP", "Notification-List"]);
    id(post(&bff, JSON, entry("a"))).await;
    world.redis.stop();
    bff.until_not_ready().await;
    let answer = post(&bff, JSON, entry("b")).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[header::RETRY_AFTER]),
        (503, &"1".parse().unwrap())
    );
    assert_eq!(reqwest::get(bff.http("/api/notifications")).await.unwrap().status(), 503);
    let stream = reqwest::get(bff.http("/sse")).await.unwrap().text().await.unwrap();
    assert!(stream.starts_with("retry: ") && stream.contains("Redis unavailable"), "{stream}");
}

#[tokio::test]
async fn history_is_read_in_consecutive_pages() {
    let world = World::new();
    let bff = world.bff("bff-1").await;
    let start = world.broker.tail().await.unwrap().to_string();
    world.push((0..1_500).map(entry)).await;
    eventually("all are claimed", DEADLINE, async || {
        bff.metric("carillon_entries_claimed_total", "").await > 1_499.5
    })
    .await;
    let ids = |page: &Page| {
        page.items
            .iter()
            .map(|item| {
                serde_json::from_str::<carillon_protocol::Notification>(item.notification.get()).unwrap().id
            })
            .collect::<Vec<_>>()
    };

    let first = page(&bff, "").await;
    assert_eq!((first.items.len(), first.gap), (100, false));
    let mut all = vec![];
    let mut since = start;
    loop {
        let page = page(&bff, &format!("?since={since}&limit=700")).await;
        all.extend(ids(&page));
        since = page.next.clone();
        if page.items.is_empty() {
            break;
        }
    }
    assert_eq!(all, (0..1_500).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(page(&bff, "?limit=1000").await.items.len(), 1_000);

    // A reader takes over where the pages ended.
    let reader = Reader::connect(&format!("{}?since={since}", bff.ws())).await;
    world.push([entry("live")]).await;
    assert_eq!(reader.wait_for(1).await[0].id, "live");

    for limit in ["0", "1001", "-1", "many"] {
        let problem =
            refused(Client::new().get(bff.http(&format!("/api/notifications?limit={limit}"))), 400).await;
        assert_eq!((problem.errors[0].field.as_str(), problem.errors[0].limit), ("limit", Some(1_000)));
    }
    // The remaining entries take more than one read, of which the first finds the gap.
    world.redis.run(&["XTRIM", "{Notification-List}:history:everyone", "MAXLEN", "200"]);
    let trimmed = page(&bff, &format!("?since={}&limit=1000", first.next)).await;
    assert_eq!((trimmed.items.len(), trimmed.gap), (200, true));
}

#[tokio::test]
async fn entries_of_any_program_are_read_the_same_way() {
    let redis = RedisServer::start();
    let bff = Bff::spawn("bff-1", &redis.url(), &[]);
    bff.until_ready().await;
    let reader = Reader::connect(&bff.ws()).await;
    redis.run(&["LPUSH", "Notification-List", "hello"]);
    redis.run(&["PUBLISH", "Notification-Channel", "x"]);
    let received = reader.wait_for(1).await;
    assert_eq!((received[0].body.as_str(), received[0].claimed_by.as_str()), ("hello", "bff-1"));
    // Without a wake-up the poll finds it.
    redis.run(&["LPUSH", "Notification-List", "unannounced"]);
    assert_eq!(reader.wait_for(2).await[1].body, "unannounced");
    let broker = Broker::redis(&redis.url(), Names::default()).unwrap();
    assert_eq!(broker.claim("x", FanOut::All).await.unwrap().taken(), 0);
}
