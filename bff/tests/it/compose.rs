//! The stack of docker-compose.yml, by its front door. `scripts/test-compose` brings it up for this test,
//! names it in the environment, and takes it down.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use carillon_harness::{Reader, ReaderOptions, eventually};
use carillon_protocol::http::Page;
use reqwest::{Client, Response, header};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::sticky::{cookie, welcome};

/// The longest that a container may take to come or go.
const DEADLINE: Duration = Duration::from_secs(90);
/// The deadline until the reader of a killed replica is on another.
const FAILOVER_DEADLINE: Duration = Duration::from_secs(10);
/// How often a notification is posted, beside those of the producer.
const INTERVAL: Duration = Duration::from_millis(50);
/// How often a cookie is tried.
const TRIES: usize = 5;

/// The published port of the front door.
struct Door {
    host: String,
    key: String,
    client: Client,
}

impl Door {
    async fn find() -> Self {
        let host = compose("port frontend 8080").await;
        let key = std::env::var_os("API_KEY").expect("scripts/test-compose starts this test");
        Self { host, key: key.into_string().unwrap(), client: Client::new() }
    }

    async fn get(&self, path: &str, cookie: Option<&str>) -> reqwest::Result<Response> {
        let request = self.client.get(format!("http://{}{path}", self.host));
        match cookie {
            Some(cookie) => request.header(header::COOKIE, cookie).send().await,
            None => request.send().await,
        }
    }

    /// Sees `count` replicas behind the door, and returns each with a cookie that leads to it.
    async fn replicas(&self, count: usize) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = vec![];
        eventually(&format!("{count} replicas behind the door"), DEADLINE, async || {
            let Ok(answer) = self.get("/sse", None).await else { return false };
            if let Some(cookie) = cookie(&answer).filter(|_| answer.status() == 200) {
                let replica = welcome(answer).await;
                if found.iter().all(|(other, _)| *other != replica) {
                    found.push((replica, cookie));
                }
            }
            found.len() >= count
        })
        .await;
        found
    }

    async fn post(&self, id: &str, key: Option<&str>) -> reqwest::Result<u16> {
        let mut request = self
            .client
            .post(format!("http://{}/api/notifications", self.host))
            .header(header::CONTENT_TYPE, "application/json")
            .body(serde_json::json!({ "id": id, "body": id, "from": "test" }).to_string());
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        request.send().await.map(|answer| answer.status().as_u16())
    }

    /// Posts until it is accepted: the id makes a repeated post harmless.
    async fn publish(&self, id: &str) {
        let accepted = async || {
            timeout(INTERVAL * 40, self.post(id, Some(&self.key)))
                .await
                .is_ok_and(|r| r.is_ok_and(|s| s == 202))
        };
        eventually("an accepted post", DEADLINE, accepted).await;
    }

    /// All that history holds, in its order.
    async fn history(&self) -> Vec<Value> {
        let (mut items, mut since) = (vec![], String::new());
        loop {
            let path = format!("/api/notifications?limit=1000{since}");
            let page: Page = self.get(&path, None).await.unwrap().json().await.unwrap();
            if page.items.is_empty() {
                return items;
            }
            items
                .extend(page.items.iter().map(|item| serde_json::from_str(item.notification.get()).unwrap()));
            since = format!("&since={}", page.next);
        }
    }

    async fn reader(&self, cookie: Option<&str>) -> Reader {
        let mut options = ReaderOptions::new(&[&format!("ws://{}/ws", self.host)]);
        options.dial.headers.extend(cookie.map(|cookie| ("cookie".to_owned(), cookie.to_owned())));
        Reader::connect_with(options).await
    }
}

/// Runs `docker compose` on the stack that the environment names, and returns what it prints.
async fn compose(arguments: &str) -> String {
    docker(&format!("compose {arguments}")).await
}

async fn docker(arguments: &str) -> String {
    let words: Vec<_> = arguments.split(' ').map(ToOwned::to_owned).collect();
    let root = crate::door::root();
    let run = move || Command::new("docker").args(words).current_dir(root).stdin(Stdio::null()).output();
    let output = timeout(DEADLINE, spawn_blocking(run)).await.expect("docker in time").unwrap().unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "docker {arguments}: {error}");
    out.trim().to_owned()
}

async fn scale(bffs: usize) {
    compose(&format!("up --detach --wait --no-build --no-deps --no-recreate --scale bff={bffs} bff")).await;
}

/// Readers: each is led to a replica by a cookie, except for the last one.
struct Stage {
    door: Door,
    readers: Vec<Reader>,
}

impl Stage {
    /// The same cookie leads to the same replica, by SSE and by WebSocket.
    async fn set() -> Self {
        let door = Door::find().await;
        let mut readers = vec![];
        for (replica, cookie) in door.replicas(3).await {
            for _ in 0..TRIES {
                let again = door.get("/sse", Some(&cookie)).await.unwrap();
                assert_eq!(welcome(again).await, replica, "the cookie holds");
            }
            let reader = door.reader(Some(&cookie)).await;
            assert_eq!(reader.record().live_on(), Some(&*replica), "the cookie holds a WebSocket too");
            readers.push(reader);
        }
        readers.push(door.reader(None).await);
        Self { door, readers }
    }

    /// Waits until every reader has a connection again, and has read on.
    async fn all_read_on(&self, what: &str, since: Instant) {
        self.door.publish(what).await;
        for reader in &self.readers {
            reader.until(what, |record| record.received.iter().any(|one| one.id == what)).await;
        }
        println!("{what}: every reader has read on {:.1?} after it began", since.elapsed());
    }

    async fn disturb(&self) {
        let start = Instant::now();
        scale(5).await;
        self.door.replicas(5).await;
        self.all_read_on("scaled to 5", start).await;

        let killed = self.readers[0].record().live_on().unwrap().to_owned();
        let start = Instant::now();
        docker(&format!("kill {killed}")).await;
        eventually("another replica", FAILOVER_DEADLINE, async || {
            self.readers[0].record().live_on().is_some_and(|replica| replica != killed)
        })
        .await;
        self.all_read_on("a replica killed", start).await;
        docker(&format!("start {killed}")).await;

        let start = Instant::now();
        compose("kill redis").await;
        compose("start redis").await;
        self.all_read_on("Redis killed and started", start).await;

        let start = Instant::now();
        compose("restart redis").await;
        self.all_read_on("Redis restarted", start).await;

        let start = Instant::now();
        scale(3).await;
        self.all_read_on("scaled to 3", start).await;

        let start = Instant::now();
        compose("up --detach --wait --no-build --no-deps --force-recreate bff").await;
        self.door.replicas(3).await;
        self.all_read_on("all replicas replaced", start).await;
    }

    /// Posts at a steady rate, and returns the ids.
    async fn publish_until(&self, stop: &CancellationToken) -> Vec<String> {
        let mut ids = vec![];
        while !stop.is_cancelled() {
            let id = format!("post-{}", ids.len());
            self.door.publish(&id).await;
            ids.push(id);
            sleep(INTERVAL).await;
        }
        ids
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine: run scripts/test-compose"]
async fn every_notification_arrives_once_despite_scaling_kills_and_restarts() {
    let stage = Stage::set().await;
    assert_eq!(stage.door.post("no key", None).await.unwrap(), 401, "publishing needs a key");

    let stop = CancellationToken::new();
    let disturb = async {
        stage.disturb().await;
        stop.cancel();
    };
    let ((), posted) = tokio::join!(disturb, stage.publish_until(&stop));
    compose("stop producer").await;
    stage.all_read_on("the end", Instant::now()).await;

    let history = stage.door.history().await;
    let ids: Vec<_> = history.iter().map(|one| one["id"].as_str().unwrap()).collect();
    let unique: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "history has each once");
    assert_eq!(posted.iter().find(|id| !unique.contains(id.as_str())), None, "every accepted post is there");
    let made_up: Vec<_> = history
        .iter()
        .filter_map(|one| one["title"].as_str()?.split(' ').find_map(|word| word.parse::<usize>().ok()))
        .collect();
    assert_eq!(made_up, (1..=made_up.len()).collect::<Vec<_>>(), "the producer's are all there, in order");
    for reader in &stage.readers {
        let record = reader.record();
        let read = record.ids();
        let begin = ids.iter().position(|id| *id == read[0]).unwrap();
        assert!(read == ids[begin..], "a reader has each since it came, once and in order: {record:?}");
        println!(
            "a reader: {} notifications over {} connections, {} came again and were dropped",
            read.len(),
            record.welcomes.len(),
            record.repeated
        );
    }
    println!("{} posted, {} made up by the producer", posted.len(), made_up.len());
}
