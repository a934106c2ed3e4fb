//! The manual for workers in other languages, held to its word.

use std::process::Command;

use carillon_broker::{Broker, Lease, Names, NewJob, Speaker};
use carillon_harness::{RedisServer, hostile};
use carillon_protocol::{Audience, JobStatus};
use redis::Script;

#[tokio::test]
async fn the_shell_worker_of_the_manual_does_a_job() {
    let server = RedisServer::shared();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let manual = std::fs::read_to_string(format!("{root}/docs/protocol/jobs.md")).unwrap();
    let script = manual.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let worker = || {
        let worker = Command::new("bash")
            .args(["-euc", script])
            .current_dir(root)
            .env("REDIS_URL", server.url())
            .output()
            .unwrap();
        assert!(worker.status.success(), "{}", String::from_utf8_lossy(&worker.stderr));
        String::from_utf8(worker.stdout).unwrap()
    };
    assert_eq!(worker(), "", "nothing to do");
    let job = NewJob {
        id: "42".into(),
        owner: Audience::Session("s".into()),
        to: Audience::Session("s".into()),
        name: "Report".into(),
        input: "{}".into(),
    };
    broker.enqueue_job(&job).await.unwrap();
    assert_eq!(worker(), "1\n1\n", "both had an effect");
    let done = broker.job(&Audience::Session("s".into()), "42").await.unwrap().unwrap();
    assert_eq!((done.status, done.progress), (JobStatus::Done, 100));
    assert_eq!(done.result.as_deref(), Some(r#"{"from":"the shell"}"#));
    assert_eq!(broker.waiting().await.unwrap(), 4, "and each change was published");
}

#[tokio::test]
async fn what_the_queues_keep_has_its_names_and_expires() {
    let server = RedisServer::shared();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let owner = Audience::User("ann".into());
    let job = NewJob {
        id: "a".into(),
        owner: owner.clone(),
        to: owner.clone(),
        name: "n".into(),
        input: "{}".into(),
    };
    broker.enqueue_job(&job).await.unwrap();
    broker.send_out(&owner, "m", b"{}", Speaker::Anonymous).await.unwrap();
    broker.send_out(&owner, "n", b"{}", Speaker::User("ann")).await.unwrap();
    let session = Audience::Session("s".into());
    broker.enqueue_job(&NewJob { owner: session.clone(), ..job }).await.unwrap();
    broker.take_outgoing(1).await.unwrap();
    let hour = 60 * 60 * 1_000;
    for (key, kind, expires) in [
        ("jobs", "zset", false),
        ("jobs:user:ann", "list", true),
        ("job:8:user:anna", "hash", true),
        ("outbox", "zset", false),
        ("outbox:messages", "hash", false),
        ("outbox:attempts", "hash", false),
        ("outbox:since", "hash", false),
        ("outbox:silent", "hash", false),
        ("outbox:failures", "hash", false),
        ("outbox:anonymous", "set", false),
        ("outbox:user:ann", "list", false),
        ("jobs:anonymous", "set", false),
        ("outbox:of:user:ann", "set", false),
        ("outbox:senders", "hash", false),
    ] {
        let key = format!("{{Notification-List}}:{key}");
        assert_eq!(server.cli(&["TYPE", &key]), kind, "{key}");
        let left: i64 = server.cli(&["PTTL", &key]).parse().unwrap();
        assert!(if expires { (23 * hour..=24 * hour).contains(&left) } else { left == -1 }, "{key}: {left}");
    }
    let before = server.cli(&["DBSIZE"]);
    assert_eq!(before, "17", "and the list: {}", server.cli(&["KEYS", "*"]));
}

#[tokio::test]
async fn a_worker_that_sends_nonsense_is_refused_and_changes_nothing() {
    let server = RedisServer::start();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let owner = Audience::User("ann".into());
    let (id, to) = ("a".to_owned(), owner.clone());
    let job = NewJob { id, owner: owner.clone(), to, name: "n".into(), input: "{}".into() };
    broker.enqueue_job(&job).await.unwrap();
    broker.take_job("w").await.unwrap();
    let before = (broker.job(&owner, "a").await.unwrap(), broker.waiting().await.unwrap());
    let (large, id) = (format!("\"{}\"", "x".repeat(8_192)), job.handle());
    // What programs read differently: NaN of Python, half an emoji, numbers that nothing holds, depth.
    let deep = format!("{}{}", "[".repeat(125), "]".repeat(125));
    let digits = "9".repeat(400);
    let verbs: &[&[&str]] = &[
        &["done", &id, "1", "NaN", "8192"],
        &["done", &id, "1", r#"{"rate":Infinity}"#, "8192"],
        &["done", &id, "1", "-Infinity", "8192"],
        &["done", &id, "1", "nan", "8192"],
        &["done", &id, "1", "0x10", "8192"],
        &["done", &id, "1", "01", "8192"],
        &["done", &id, "1", "1.", "8192"],
        &["done", &id, "1", "1e400", "8192"],
        &["done", &id, "1", &digits, "8192"],
        &["done", &id, "1", &deep, "8192"],
        &["done", &id, "1", r#""\ud83c""#, "8192"],
        &["done", &id, "1", r#"{"\udf00":1}"#, "8192"],
        &["done", &id, "1", "\"a\u{1}\"", "8192"],
        &["done", &id, "1", "\u{feff}1", "8192"],
        &["fail", &id, "1", "[1,]", "8192", "3", "1000"],
        &["report", &id, "1", "nan", "15000"],
        &["report", &id, "1", "inf", "15000"],
        &["done", &id, "1", "{", "8192"],
        &["done", &id, "1", "1,2", "8192"],
        &["done", &id, "1", "", "8192"],
        &["done", &id, "1", &large, "8192"],
        &["fail", &id, "1", "no JSON", "8192", "3", "1000"],
        &["report", &id, "1", "much", "15000"],
        &["invent"],
    ];
    for verb in verbs.iter().copied() {
        let port = server.port().to_string();
        let mut args = vec!["-p", &port, "EVAL", include_str!("../../src/jobs/jobs.lua"), "2"];
        args.extend([
            "{Notification-List}:jobs",
            "Notification-List",
            verb[0],
            "Notification-Channel",
            "86400000",
        ]);
        args.extend(&verb[1..]);
        let answer = Command::new("redis-cli").args(&args).output().unwrap().stdout;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("ERR"), "{verb:?}: {answer}");
        assert_eq!(
            (broker.job(&owner, "a").await.unwrap(), broker.waiting().await.unwrap()),
            before,
            "{verb:?}"
        );
    }
    // The attempt is not lost: the worker may repeat it correctly.
    let good = r#"{"rate":null,"sign":"\ud83d\ude00","least":-1.10e-5}"#;
    assert_eq!(broker.finish_job(&id, 1, good).await.unwrap(), Lease::Held);
    assert_eq!(broker.job(&owner, "a").await.unwrap().unwrap().result.as_deref(), Some(good));
}

#[tokio::test]
async fn a_report_is_accepted_only_if_all_programs_read_it_alike() {
    let server = RedisServer::shared();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let script = Script::new(include_str!("../../src/jobs/jobs.lua"));
    let mut faults = Vec::new();
    for (n, one) in hostile().into_iter().enumerate() {
        let owner = Audience::User(n.to_string());
        let to = owner.clone();
        let job = NewJob { id: "j".into(), owner: owner.clone(), to, name: "n".into(), input: "{}".into() };
        broker.enqueue_job(&job).await.unwrap();
        broker.take_job("w").await.unwrap();
        let mut call = script.key("{Notification-List}:jobs");
        call.key("Notification-List").arg("done").arg("Notification-Channel").arg(86_400_000);
        call.arg(job.handle()).arg(1).arg(&one.json).arg(8_192);
        let by_script: Result<u64, _> = call.invoke_async(&mut connection).await;
        let by_rust = match one.text() {
            Some(text) => broker.finish_job(&job.handle(), 1, text).await.is_ok(),
            None => false,
        };
        if (by_script.as_ref().ok(), by_rust) != if one.taken { (Some(&1), true) } else { (None, false) } {
            faults.push(format!("{}: {by_script:?}, and in Rust {by_rust}", one.what));
        }
        let stands = broker.job(&owner, "j").await.unwrap().unwrap();
        let expected = if one.taken { JobStatus::Done } else { JobStatus::Running };
        assert_eq!(stands.status, expected, "{}", one.what);
        assert_eq!(broker.finish_job(&job.handle(), 1, "1").await.unwrap(), Lease::Held, "{}", one.what);
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
