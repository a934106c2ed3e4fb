//! Background jobs: started on one replica, run on another, and reported to their owner on any.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use carillon_harness::{Reader, ReaderOptions, Record, eventually};
use carillon_protocol::Audience;
use serde_json::{Value, json};

use crate::people::{KEY, PEOPLE, people_with, signed_in, token};
use crate::world::{Bff, DEADLINE, World, in_process};

/// A job that a dead replica held waits for the end of its lease, 15 s, and then takes its time again.
const TAKEN_OVER: Duration = Duration::from_secs(90);

/// Replicas where any client with a session or a token may start jobs.
async fn people(world: &World, count: usize) -> Vec<Bff> {
    people_with(world, count, &["--allow-jobs"]).await
}

/// The owner of jobs: a session, or a signed-in user.
#[derive(Clone)]
struct Owner {
    header: &'static str,
    value: String,
}

impl Owner {
    fn user(name: &str) -> Self {
        Self { header: "authorization", value: format!("Bearer {}", token(name)) }
    }

    /// A new session at the replica with this address.
    async fn session(http: &str) -> Self {
        let answer = reqwest::Client::new().post(format!("{http}/api/sessions")).send().await.unwrap();
        let opened: Value = answer.json().await.unwrap();
        Self { header: "carillon-session", value: opened["session"].as_str().unwrap().to_owned() }
    }

    /// Where its readers connect.
    fn ws(&self, bff: &Bff) -> String {
        format!("{}?session={}", bff.ws(), self.value)
    }

    async fn post(&self, http: &str, job: &Value) -> (u16, Value) {
        let request = reqwest::Client::new().post(format!("{http}/api/jobs"));
        let answer = request.header(self.header, &self.value).json(job).send().await.unwrap();
        let (status, place) = (answer.status().as_u16(), answer.headers().get("location").cloned());
        let body: Value = answer.json().await.unwrap();
        let expected = body["id"].as_str().map(|id| format!("/api/jobs/{id}"));
        assert_eq!(place.map(|place| place.to_str().unwrap().to_owned()), expected);
        (status, body)
    }

    async fn get(&self, http: &str, path: &str) -> (u16, Value) {
        let request = reqwest::Client::new().get(format!("{http}{path}"));
        let answer = request.header(self.header, &self.value).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn until(&self, http: &str, id: &str, status: &str) -> Value {
        let path = format!("/api/jobs/{id}");
        let is = async || self.get(http, &path).await.1["status"] == status;
        eventually(&format!("{id} is {status}"), TAKEN_OVER, is).await;
        self.get(http, &path).await.1
    }
}

/// The numbers of a job's reports among some ids, in the order in which they came.
fn reports(record: &Record, id: &str) -> Vec<u32> {
    let prefix = format!("job:{id}:");
    record.ids().iter().filter_map(|one| one.strip_prefix(&prefix)?.split(':').next()?.parse().ok()).collect()
}

/// The last report of a job that a reader got says so.
fn ends(record: &Record, id: &str, words: &str) -> bool {
    let of = |one: &&carillon_harness::Received| one.id.starts_with(&format!("job:{id}:"));
    record.received.iter().rfind(of).is_some_and(|one| one.body == words)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reloaded_on_another_replica_gets_each_report_once() {
    let world = World::new();
    let bffs = people(&world, 3).await;
    let owner = Owner::session(&bffs[0].http("")).await;
    let page = Reader::connect(&owner.ws(&bffs[0])).await;
    let job = json!({"id": "report", "name": "Yearly report", "steps": 8});
    let (status, body) = owner.post(&bffs[0].http(""), &job).await;
    assert_eq!((status, body["id"].as_str(), body["status"].as_str()), (202, Some("report"), Some("queued")));
    assert!(body["to"]["session"].is_string(), "{body}");
    page.until("three reports", |record| reports(record, "report").len() >= 3).await;
    let before = page.record();
    drop(page);
    let since = before.received.last().unwrap().cursor.clone();
    let options = ReaderOptions {
        since: Some(since),
        ..ReaderOptions::new(&[&owner.ws(&bffs[1]), &owner.ws(&bffs[2])])
    };
    let page = Reader::connect_with(options).await;
    // And its network is lost as well.
    page.cut().await;
    page.until("the end", |record| ends(record, "report", "done")).await;
    let after = page.record();
    let told = [reports(&before, "report"), reports(&after, "report")].concat();
    // Queued, begun, after each of seven steps, done.
    assert_eq!(told, (0..10).collect::<Vec<_>>(), "each once and in order");
    let bodies: Vec<_> = before.received.iter().chain(&after.received).map(|one| one.body.as_str()).collect();
    assert_eq!(bodies, ["queued", "0 %", "12 %", "25 %", "37 %", "50 %", "62 %", "75 %", "87 %", "done"]);
    let (status, done) = owner.get(&bffs[2].http(""), "/api/jobs/report").await;
    assert_eq!(
        (status, done["name"].as_str(), done["progress"].as_u64()),
        (200, Some("Yearly report"), Some(100))
    );
    assert_eq!((done["status"].as_str(), done["result"]["steps"].as_u64()), (Some("done"), Some(8)));
    assert!(done["created_at"].as_str().unwrap() < done["updated_at"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_replica_is_killed_is_ended_by_another() {
    let world = World::new();
    let mut bffs = people(&world, 3).await;
    let tabs: Vec<_> = bffs.iter().map(|bff| signed_in(bff, "ann")).collect();
    let tabs: Vec<_> = tabs.iter().map(String::as_str).collect();
    let owner = Owner::user("ann");
    let reader = Reader::connect_with(ReaderOptions::new(&tabs)).await;
    assert_eq!(owner.post(&bffs[0].http(""), &json!({"id": "j", "steps": 6})).await.0, 202);
    reader.until("a begun job", |record| reports(record, "j").len() >= 3).await;
    let held_by = world.redis.cli(&["HGET", "{Notification-List}:job:8:user:annj", "worker"]);
    let at = bffs.iter().position(|bff| bff.name == held_by).unwrap();
    let mut dead = bffs.remove(at);
    dead.process.kill();
    let done = owner.until(&bffs[0].http(""), "j", "done").await;
    let worker = done["result"]["worker"].as_str().unwrap();
    assert!(worker != held_by && bffs.iter().any(|bff| bff.name == worker), "{worker} after {held_by}");
    reader.until("the end", |record| ends(record, "j", "done")).await;
    let record = reader.record();
    let told = reports(&record, "j");
    assert_eq!(told, (0..u32::try_from(told.len()).unwrap()).collect::<Vec<_>>(), "each once and in order");
    let begun = record.received.iter().filter(|one| one.body == "0 %").count();
    assert_eq!((begun, record.gaps.len()), (2, 0), "it was begun twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_replica_releases_its_jobs_at_once() {
    let world = World::new();
    let mut first = people(&world, 1).await.remove(0);
    let owner = Owner::user("ann");
    assert_eq!(owner.post(&first.http(""), &json!({"id": "j", "steps": 100})).await.0, 202);
    owner.until(&first.http(""), "j", "running").await;
    first.process.sigterm();
    assert_eq!(first.process.wait_exit(DEADLINE).await, 0);
    let given_back = world.broker.job(&Audience::User("ann".into()), "j").await.unwrap().unwrap();
    assert_eq!(given_back.status.as_str(), "queued");
    assert_eq!(given_back.result, None, "nothing has failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_go_to_the_named_connection_only() {
    let world = World::new();
    let bffs = people(&world, 2).await;
    let owner = Owner::session(&bffs[0].http("")).await;
    let tab = Reader::connect(&owner.ws(&bffs[0])).await;
    let other = Reader::connect(&owner.ws(&bffs[1])).await;
    let connection = tab.record().welcomes[0].connection.clone();
    let job = json!({"id": "j", "steps": 3, "notify": {"connection": connection}});
    let (status, body) = owner.post(&bffs[1].http(""), &job).await;
    assert_eq!((status, &body["to"]), (202, &json!({"connection": connection})));
    tab.until("the end", |record| ends(record, "j", "done")).await;
    assert_eq!(reports(&tab.record(), "j"), [0, 1, 2, 3, 4]);
    // A closed tab receives nothing, and the job is done all the same.
    drop(tab);
    let job = json!({"id": "k", "steps": 1, "notify": {"connection": connection}});
    assert_eq!(owner.post(&bffs[0].http(""), &job).await.0, 202);
    owner.until(&bffs[0].http(""), "k", "done").await;
    assert_eq!(owner.post(&bffs[0].http(""), &json!({"id": "l", "steps": 1})).await.0, 202);
    other.until("the end", |record| ends(record, "l", "done")).await;
    let ids: BTreeSet<_> = other.record().ids().iter().map(|id| id[..5].to_owned()).collect();
    assert_eq!(ids, BTreeSet::from(["job:l".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_its_owner_s_and_a_repeated_start_begins_nothing() {
    let world = World::new();
    let args = [&PEOPLE[..], &["--allow-jobs", "--no-worker"]].concat();
    let bffs = ["bff-1", "bff-2"].map(|name| Bff::spawn(name, &world.redis.url(), &args));
    for bff in &bffs {
        bff.until_ready().await;
    }
    let (here, there) = (bffs[0].http(""), bffs[1].http(""));
    let session = Owner::session(&here).await;
    let (ann, ben) = (Owner::user("ann"), Owner::user("ben"));
    for (owner, at) in [(&ann, &here), (&ann, &there), (&ann, &here)] {
        let (status, body) = owner.post(at, &json!({"id": "a", "name": "first"})).await;
        assert_eq!((status, body["to"]["user"].as_str()), (202, Some("ann")));
    }
    let mut given = Vec::new();
    for _ in 0..2 {
        let (status, body) = ann.post(&here, &json!({})).await;
        assert_eq!(status, 202);
        given.push(body["id"].as_str().unwrap().to_owned());
    }
    let (status, mine) = ann.get(&there, "/api/jobs").await;
    let ids: Vec<_> =
        mine["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!((status, ids), (200, vec![given[1].as_str(), &given[0], "a"]), "newest first, each once");
    for owner in [&ben, &session] {
        assert_eq!(owner.get(&here, "/api/jobs/a").await.0, 404);
        assert_eq!(owner.get(&here, "/api/jobs").await.1, json!({"jobs": []}));
        // The id is theirs too, for a job of their own.
        assert_eq!(owner.post(&there, &json!({"id": "a", "name": "another"})).await.0, 202);
        assert_eq!(owner.get(&here, "/api/jobs/a").await.1["name"], "another");
        assert_eq!(ann.get(&here, "/api/jobs/a").await.1["name"], "first");
    }
    assert_eq!(ann.get(&here, "/api/jobs/other").await.0, 404);
    // What a session started is still its user's after they have signed in.
    assert_eq!(session.post(&here, &json!({"id": "s"})).await.0, 202);
    let both = |request: reqwest::RequestBuilder| {
        request.header(session.header, &session.value).header(ann.header, &ann.value)
    };
    let client = reqwest::Client::new();
    let again = both(client.post(format!("{here}/api/jobs"))).json(&json!({"id": "s"})).send().await.unwrap();
    assert_eq!(again.status(), 202);
    let all: Value = both(client.get(format!("{here}/api/jobs"))).send().await.unwrap().json().await.unwrap();
    assert_eq!((all["jobs"].as_array().unwrap().len(), &all["jobs"][0]["id"]), (5, &json!("s")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_cannot_be_started_is_refused_with_a_reason() {
    let world = World::new();
    let args = [&PEOPLE[..], &["--allow-jobs", "--no-worker"]].concat();
    let bff = Bff::spawn("bff-1", &world.redis.url(), &args);
    bff.until_ready().await;
    let http = bff.http("");
    let (ann, session) = (Owner::user("ann"), Owner::session(&http).await);
    let long = "x".repeat(121);
    for (owner, job, field) in [
        (&ann, json!({"id": ""}), "id"),
        (&ann, json!({"id": "a/b"}), "id"),
        (&ann, json!({"id": "x".repeat(101)}), "id"),
        (&ann, json!({"name": ""}), "name"),
        (&ann, json!({"name": long}), "name"),
        (&ann, json!({"steps": 0}), "steps"),
        (&ann, json!({"steps": 101}), "steps"),
        (&ann, json!({"steps": -1}), ""),
        (&ann, json!({"notify": "session"}), "notify"),
        (&session, json!({"notify": "user"}), "notify"),
        (&ann, json!({"notify": {"connection": ""}}), "notify"),
        (&ann, json!({"notify": "everyone"}), ""),
        (&ann, json!({"owner": "ben"}), ""),
    ] {
        let (status, problem) = owner.post(&http, &job).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some(field)), "{job}: {problem}");
    }
    assert_eq!(ann.post(&http, &json!({"name": "x".repeat(5_000)})).await.0, 413);
    let client = reqwest::Client::new();
    let jobs = || client.post(bff.http("/api/jobs"));
    let nobody = jobs().json(&json!({})).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    assert_eq!(client.get(bff.http("/api/jobs")).send().await.unwrap().status(), 401);
    let text = jobs().header(ann.header, &ann.value).body("{}").send().await.unwrap();
    assert_eq!(text.status(), 415);
    let foreign = jobs().header(ann.header, &ann.value).header("origin", "https://elsewhere.example");
    assert_eq!(foreign.json(&json!({})).send().await.unwrap().status(), 403);
    assert_eq!(ann.get(&http, "/api/jobs").await.1, json!({"jobs": []}), "nothing was started");
    // The queue is full, of jobs that are due in a thousand years.
    let fill = "for n = 1, 10000 do redis.call('ZADD', KEYS[1], 4e16, 'x' .. n) end";
    world.redis.run(&["EVAL", fill, "1", "{Notification-List}:jobs"]);
    let full = jobs().header(ann.header, &ann.value).json(&json!({"id": "late"})).send().await.unwrap();
    assert_eq!((full.status().as_u16(), full.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(ann.get(&http, "/api/jobs/late").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_in_another_language_runs_the_jobs_of_replicas_without_workers() {
    let world = World::new();
    let args = [&PEOPLE[..], &["--allow-jobs", "--no-worker"]].concat();
    let bff = Bff::spawn("bff-1", &world.redis.url(), &args);
    bff.until_ready().await;
    let owner = Owner::session(&bff.http("")).await;
    let page = Reader::connect(&owner.ws(&bff)).await;
    assert_eq!(owner.post(&bff.http(""), &json!({"id": "j"})).await.0, 202);
    page.wait_for(1).await;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let manual = std::fs::read_to_string(format!("{root}/docs/protocol/jobs.md")).unwrap();
    let script = manual.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let worker = Command::new("bash")
        .args(["-euc", script])
        .current_dir(root)
        .env("REDIS_URL", world.redis.url())
        .output()
        .unwrap();
    assert!(worker.status.success(), "{}", String::from_utf8_lossy(&worker.stderr));
    page.until("the end", |record| ends(record, "j", "done")).await;
    let bodies: Vec<_> = page.received().into_iter().map(|one| one.body).collect();
    assert_eq!(bodies, ["queued", "0 %", "50 %", "done"]);
    let done = owner.until(&bff.http(""), "j", "done").await;
    assert_eq!(done["result"], json!({"from": "the shell"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_done_without_redis_too() {
    let (_broker, _faults, addr) = in_process().await;
    let http = format!("http://{addr}");
    let owner = Owner::session(&http).await;
    let page = Reader::connect(&format!("ws://{addr}/ws?session={}", owner.value)).await;
    assert_eq!(owner.post(&http, &json!({"id": "j", "steps": 4})).await.0, 202);
    page.until("the end", |record| ends(record, "j", "done")).await;
    let bodies: Vec<_> = page.received().into_iter().map(|one| one.body).collect();
    assert_eq!(bodies, ["queued", "0 %", "25 %", "50 %", "75 %", "done"]);
    assert_eq!(owner.post(&http, &json!({"id": "j"})).await.1["status"], "done", "it is not begun again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_need_a_key_unless_they_are_allowed() {
    let world = World::new();
    let bff = people_with(&world, 1, &["--no-worker"]).await.remove(0);
    let http = bff.http("");
    let session = Owner::session(&http).await;
    for owner in [&session, &Owner::user("ann")] {
        let (status, problem) = owner.post(&http, &json!({"id": "j"})).await;
        assert_eq!((status, problem["title"].as_str()), (403, Some("jobs not allowed")));
        assert!(problem["detail"].as_str().unwrap().contains("--allow-jobs"), "{problem}");
        assert_eq!(owner.get(&http, "/api/jobs").await.1, json!({"jobs": []}));
    }
    let post = |path: &str| reqwest::Client::new().post(bff.http(path)).bearer_auth(KEY);
    let of_session = post("/api/jobs").header(session.header, &session.value);
    assert_eq!(of_session.json(&json!({"id": "j"})).send().await.unwrap().status(), 202);
    assert_eq!(session.get(&http, "/api/jobs/j").await.0, 200);
    let of_ann = post(&format!("/api/jobs?token={}", token("ann")));
    assert_eq!(of_ann.json(&json!({"id": "j"})).send().await.unwrap().status(), 202);
    assert_eq!(Owner::user("ann").get(&http, "/api/jobs/j").await.0, 200);
    assert_eq!(post("/api/jobs").json(&json!({})).send().await.unwrap().status(), 401, "whose is it?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_s_sixth_job_waits_for_another_to_end_on_whichever_replica() {
    let world = World::new();
    let bffs = people_with(&world, 2, &["--allow-jobs", "--no-worker"]).await;
    let owner = Owner::session(&bffs[0].http("")).await;
    for n in 0..5 {
        assert_eq!(owner.post(&bffs[n % 2].http(""), &json!({})).await.0, 202);
    }
    for bff in &bffs {
        let request = reqwest::Client::new().post(bff.http("/api/jobs"));
        let answer = request.header(owner.header, &owner.value).json(&json!({})).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "5"));
        assert!(answer.text().await.unwrap().contains("5 of your jobs wait or run"));
        assert!(bff.metric("carillon_jobs_refused_total", "owner_full").await > 0.5);
    }
    assert_eq!(Owner::user("ann").post(&bffs[0].http(""), &json!({})).await.0, 202, "others are not held up");
    let job = world.broker.take_job("w").await.unwrap().job.unwrap();
    world.broker.finish_job(&job.handle, job.attempt, "1").await.unwrap();
    assert_eq!(owner.post(&bffs[1].http(""), &json!({})).await.0, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_sessions_start_no_more_than_their_share_of_jobs() {
    let world = World::new();
    let bff = people_with(&world, 1, &["--allow-jobs", "--no-worker"]).await.remove(0);
    let owner = Owner::session(&bff.http("")).await;
    let fill = "for n = 1, 2000 do
        redis.call('SADD', KEYS[1] .. ':anonymous', n)
        redis.call('ZADD', KEYS[1], 9e18, n)
    end";
    world.redis.run(&["EVAL", fill, "1", "{Notification-List}:jobs"]);
    let request = reqwest::Client::new().post(bff.http("/api/jobs"));
    let answer = request.header(owner.header, &owner.value).json(&json!({})).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    assert!(answer.text().await.unwrap().contains("2000 jobs of people who are not signed in"));
    assert!(bff.metric("carillon_jobs_refused_total", "anonymous_full").await > 0.5);
    assert_eq!(Owner::user("ann").post(&bff.http(""), &json!({})).await.0, 202, "users are not held up");
}
