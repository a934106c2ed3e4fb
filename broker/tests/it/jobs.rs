use std::collections::BTreeSet;

use carillon_broker::limits::{JOB_KEEP_MS, JOB_LEASE_MS, JOB_RESULT_MAX_BYTES, JOBS_LISTED_MAX};
use carillon_broker::{BrokerError, BrokerEvent, EnqueueError, Job, Lease, NewJob, job_handle};
use carillon_protocol::{Audience, Entry, JobStatus, Notification, Position, Severity};
use serde_json::{Value, json};

use crate::bench::{Bench, claimed};
use crate::on_both_engines;

on_both_engines!(
    a_job_goes_from_its_owner_to_a_worker_and_comes_back_with_a_result,
    every_change_is_published_once_in_order_to_the_recipient,
    enqueuing_again_is_harmless,
    an_id_belongs_to_its_owner_and_blocks_no_other,
    the_one_that_has_been_due_longest_is_next,
    racing_workers_take_each_job_once,
    the_newest_are_listed_for_each_owner,
    a_job_is_forgotten_a_day_after_its_last_change,
    entries_above_a_limit_are_refused_before_they_are_stored,
    an_enqueued_job_wakes_the_listeners,
);

fn user(name: &str) -> Audience {
    Audience::User(name.to_owned())
}

pub(crate) fn new(id: &str) -> NewJob {
    NewJob {
        id: id.to_owned(),
        owner: user("ann"),
        to: user("ann"),
        name: "Report".to_owned(),
        input: r#"{"steps":3}"#.to_owned(),
    }
}

/// What workers name ann's job by.
pub(crate) fn of_ann(id: &str) -> String {
    job_handle(&user("ann"), id)
}

/// One of many jobs, each of an owner of its own.
pub(crate) fn one_of_many(id: &str) -> NewJob {
    NewJob { owner: user(id), ..new(id) }
}

impl Bench {
    pub(crate) async fn enqueue(&self, id: &str) -> Job {
        self.broker.enqueue_job(&new(id)).await.unwrap()
    }

    pub(crate) async fn take(&self, worker: &str) -> Option<Job> {
        self.settled(async || self.broker.take_job(worker).await).await.job
    }

    /// Takes what must be there.
    pub(crate) async fn work(&self, worker: &str) -> (String, u32) {
        let job = self.take(worker).await.expect("a job");
        assert_eq!((job.status, job.progress), (JobStatus::Running, 0));
        (job.new.id, job.attempt)
    }

    pub(crate) async fn stands(&self, id: &str) -> Job {
        self.settled(async || self.broker.job(&user("ann"), id).await).await.expect("the job")
    }

    /// Returns the status and progress of each new report.
    pub(crate) async fn new_states(&self) -> Vec<(String, u64)> {
        let reports = self.reports().await;
        let job = |report: &Value| {
            let job = &report["data"]["job"];
            (job["status"].as_str().unwrap().to_owned(), job["progress"].as_u64().unwrap())
        };
        reports.iter().map(job).collect()
    }

    pub(crate) async fn reports(&self) -> Vec<Value> {
        claimed(&self.drain("bff").await).iter().map(|raw| serde_json::from_str(raw).unwrap()).collect()
    }
}

pub(crate) fn at(status: &str, progress: u64) -> (String, u64) {
    (status.to_owned(), progress)
}

async fn a_job_goes_from_its_owner_to_a_worker_and_comes_back_with_a_result(bench: Bench) {
    assert_eq!(bench.take("w").await, None);
    let queued = bench.enqueue("a").await;
    assert_eq!((queued.status, queued.progress, queued.attempt), (JobStatus::Queued, 0, 0));
    assert_eq!((&queued.new, &queued.result), (&new("a"), &None));
    assert!(queued.created_ms > 0 && queued.updated_ms == queued.created_ms);

    let taken = bench.take("w").await.unwrap();
    assert_eq!((taken.new, taken.status, taken.attempt), (new("a"), JobStatus::Running, 1));
    assert_eq!(bench.take("v").await, None, "nobody else gets it");
    assert_eq!(bench.broker.report_job(&of_ann("a"), 1, 60).await.unwrap(), Lease::Held);
    assert_eq!(bench.stands("a").await.progress, 60);
    // In the worker's own bytes, which a Lua number would not keep.
    let result = r#"{"rows":9007199254740993,"rate":1.10,"none":[]}"#;
    assert_eq!(bench.broker.finish_job(&of_ann("a"), 1, result).await.unwrap(), Lease::Held);
    let done = bench.stands("a").await;
    assert_eq!((done.status, done.progress, done.result.as_deref()), (JobStatus::Done, 100, Some(result)));
    assert!(done.updated_ms >= done.created_ms && done.created_ms == queued.created_ms);
    assert_eq!(bench.take("w").await, None, "it is over");
    assert_eq!(bench.broker.job(&user("ann"), "b").await.unwrap(), None);
}

async fn every_change_is_published_once_in_order_to_the_recipient(bench: Bench) {
    let to = Audience::Session("s/é".into());
    let name = "A \"name\" / with \n everything 50 %";
    let job = NewJob { to: to.clone(), name: name.into(), ..new("a:\"1\"") };
    bench.broker.enqueue_job(&job).await.unwrap();
    let (id, attempt) = bench.work("w").await;
    bench.broker.report_job(&of_ann(&id), attempt, 60).await.unwrap();
    bench.broker.finish_job(&of_ann(&id), attempt, "[1.10]").await.unwrap();
    let entries = claimed(&bench.drain("bff").await);
    let severities = [Severity::Info, Severity::Info, Severity::Info, Severity::Success];
    let bodies = ["queued", "0 %", "60 %", "done"];
    let data = [("queued", 0), ("running", 0), ("running", 60), ("done", 100)];
    assert_eq!(entries.len(), 4);
    for (n, raw) in entries.iter().enumerate() {
        assert!(
            Entry::read(raw.as_bytes(), Position::ZERO).is_ok(),
            "the strict reading lets it pass: {raw}"
        );
        let report: Notification = serde_json::from_str(raw).unwrap();
        assert!(report.id.starts_with(&format!("job:{id}:{n}:")), "{}", report.id);
        assert_eq!(report.collapse_key, Some(format!("job:{id}")));
        assert_eq!((&report.to, report.title.as_str(), report.from), (&to, name, None));
        assert_eq!((report.severity, report.body.as_str()), (severities[n], bodies[n]));
        let result = if n == 3 { "[1.10]" } else { "null" };
        let (status, progress) = data[n];
        let is: Value = serde_json::from_str(report.data.as_ref().unwrap().get()).unwrap();
        let result_is: Value = serde_json::from_str(result).unwrap();
        assert_eq!(
            is,
            json!({ "job": { "id": id, "status": status, "progress": progress, "result": result_is } })
        );
        assert!(raw.contains(&format!(r#""result":{result}"#)), "its own bytes: {raw}");
    }
}

async fn enqueuing_again_is_harmless(bench: Bench) {
    let first = bench.enqueue("a").await;
    let other_name = NewJob { name: "Another".into(), ..new("a") };
    assert_eq!(bench.broker.enqueue_job(&other_name).await.unwrap(), first, "as it stands");
    bench.work("w").await;
    assert_eq!(bench.enqueue("a").await.status, JobStatus::Running);
    bench.broker.finish_job(&of_ann("a"), 1, "1").await.unwrap();
    assert_eq!(bench.enqueue("a").await.status, JobStatus::Done);
    assert_eq!(bench.take("w").await, None, "a job that is over does not begin again");
    assert_eq!(bench.new_states().await.len(), 3, "and no report of it was published");
}

async fn an_id_belongs_to_its_owner_and_blocks_no_other(bench: Bench) {
    // Also where the two texts, put together, would be one.
    let owners = [user("ann"), user("bob"), Audience::Session("ann".into()), user("an")];
    let ids = ["a", "a", "a", "na"];
    for (owner, id) in owners.iter().zip(ids) {
        let job = NewJob { owner: owner.clone(), to: owner.clone(), ..new(id) };
        assert_eq!(bench.broker.enqueue_job(&job).await.unwrap().status, JobStatus::Queued);
    }
    for (n, (owner, id)) in owners.iter().zip(ids).enumerate() {
        let job = bench.take("w").await.unwrap();
        assert_eq!((&job.new.owner, job.new.id.as_str()), (owner, id));
        bench.broker.finish_job(&job.handle, 1, &n.to_string()).await.unwrap();
    }
    for (n, (owner, id)) in owners.iter().zip(ids).enumerate() {
        let job = bench.broker.job(owner, id).await.unwrap().unwrap();
        assert_eq!(job.result, Some(n.to_string()));
        assert_eq!(bench.broker.jobs_of(owner).await.unwrap(), [job]);
    }
    assert_eq!(bench.new_states().await.len(), 12, "no report is taken for another owner's");
}

async fn the_one_that_has_been_due_longest_is_next(bench: Bench) {
    // Not in the order of their names, and several in one millisecond.
    let ids = ["c", "a", "b", "z", "m"];
    for id in ids {
        bench.enqueue(id).await;
    }
    for id in ids {
        assert_eq!(bench.work("w").await.0, id);
    }
    let burst: Vec<_> = (0..50).map(|n| one_of_many(&format!("{}-{n}", 97 * n % 50))).collect();
    futures_util::future::join_all(burst.iter().map(|job| bench.broker.enqueue_job(job))).await;
    for job in &burst {
        let (id, attempt) = bench.work("w").await;
        assert_eq!(id, job.id);
        bench.broker.finish_job(&job.handle(), attempt, "1").await.unwrap();
    }
    bench.broker.enqueue_job(&one_of_many("later")).await.unwrap();
    bench.pass_time(JOB_LEASE_MS);
    let mut again = vec![];
    for _ in 0..6 {
        again.push(bench.work("w").await.0);
    }
    assert_eq!(again, ["later", "c", "a", "b", "z", "m"], "the leases ended after it was enqueued");
}

async fn racing_workers_take_each_job_once(bench: Bench) {
    let ids: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
    let jobs: Vec<_> = ids.iter().map(|id| one_of_many(id)).collect();
    for jobs in jobs.chunks(200) {
        futures_util::future::join_all(jobs.iter().map(|job| bench.broker.enqueue_job(job))).await;
    }
    let worker = async |name: &str| {
        let mut done = vec![];
        while let Some(job) = bench.take(name).await {
            assert_eq!(job.attempt, 1);
            assert_eq!(bench.broker.report_job(&job.handle, 1, 50).await.unwrap(), Lease::Held);
            assert_eq!(bench.broker.finish_job(&job.handle, 1, "1").await.unwrap(), Lease::Held);
            done.push(job.new.id);
            tokio::task::yield_now().await;
        }
        done
    };
    let (a, b) = tokio::join!(worker("a"), worker("b"));
    assert!(!a.is_empty() && !b.is_empty(), "both had some: {} and {}", a.len(), b.len());
    let done = [a, b].concat();
    assert_eq!(done.len(), 1_000, "each once");
    assert_eq!(done.iter().collect::<BTreeSet<_>>(), ids.iter().collect());
    let reports = bench.new_states().await;
    assert_eq!(reports.len(), 4_000);
    assert_eq!(reports.iter().filter(|one| **one == at("done", 100)).count(), 1_000);
}

async fn the_newest_are_listed_for_each_owner(bench: Bench) {
    let ids: Vec<_> = (0..JOBS_LISTED_MAX + 3).map(|n| n.to_string()).collect();
    for id in &ids {
        bench.enqueue(id).await;
        if id != ids.last().unwrap() {
            bench.work("w").await;
            bench.broker.finish_job(&of_ann(id), 1, "1").await.unwrap();
        }
    }
    let other = NewJob { owner: Audience::Session("ann".into()), ..new("other") };
    bench.broker.enqueue_job(&other).await.unwrap();
    let listed = bench.broker.jobs_of(&user("ann")).await.unwrap();
    let found: Vec<_> = listed.iter().map(|job| &job.new.id).collect();
    assert_eq!(found, ids.iter().rev().take(JOBS_LISTED_MAX).collect::<Vec<_>>());
    assert_eq!(bench.stands("0").await.status, JobStatus::Done, "an older one is found by its id");
    let session = bench.broker.jobs_of(&other.owner).await.unwrap();
    assert_eq!(session.len(), 1);
    assert_eq!(session[0].new, other);
}

async fn a_job_is_forgotten_a_day_after_its_last_change(bench: Bench) {
    bench.enqueue("done").await;
    bench.enqueue("waits").await;
    bench.work("w").await;
    bench.pass_time(JOB_KEEP_MS / 2);
    bench.broker.finish_job(&of_ann("done"), 1, "1").await.unwrap();
    bench.pass_time(JOB_KEEP_MS / 2);
    assert_eq!(bench.broker.job(&user("ann"), "waits").await.unwrap(), None);
    assert_eq!(bench.stands("done").await.status, JobStatus::Done);
    assert_eq!(bench.take("w").await, None, "its place in the queue is gone too");
    bench.pass_time(JOB_KEEP_MS / 2);
    assert_eq!(bench.broker.job(&user("ann"), "done").await.unwrap(), None);
    assert!(bench.broker.jobs_of(&user("ann")).await.unwrap().is_empty());
    assert_eq!(bench.enqueue("done").await.status, JobStatus::Queued, "the id is free again");
    assert_eq!(bench.work("w").await, ("done".into(), 1));
}

async fn entries_above_a_limit_are_refused_before_they_are_stored(bench: Bench) {
    let long = |len: usize| "x".repeat(len);
    for job in [
        NewJob { id: String::new(), ..new("a") },
        NewJob { id: long(101), ..new("a") },
        NewJob { name: String::new(), ..new("a") },
        NewJob { name: "é".repeat(121), ..new("a") },
        NewJob { input: long(8 * 1024 + 1), ..new("a") },
    ] {
        assert!(matches!(bench.broker.enqueue_job(&job).await, Err(EnqueueError::Invalid(_))), "{job:?}");
    }
    let longest = NewJob { name: "\"".repeat(120), ..new(&long(100)) };
    bench.broker.enqueue_job(&longest).await.unwrap();
    let (id, attempt) = bench.work("w").await;
    let id = of_ann(&id);
    let large = format!("\"{}\"", long(JOB_RESULT_MAX_BYTES));
    for result in ["", "{", "1,2", "nul", large.as_str()] {
        let refused = bench.broker.finish_job(&id, attempt, result).await;
        assert!(matches!(refused, Err(BrokerError::Refused(_))), "{result}");
    }
    let large = format!("\"{}\"", "\\\"".repeat(JOB_RESULT_MAX_BYTES / 2 - 1));
    bench.broker.finish_job(&id, attempt, &large).await.unwrap();
    let entries = claimed(&bench.drain("bff").await);
    let read = |raw: &String| Entry::read(raw.as_bytes(), Position::ZERO);
    assert!(entries.len() == 3 && entries.iter().all(|raw| read(raw).is_ok()), "the largest can be read");
}

async fn an_enqueued_job_wakes_the_listeners(bench: Bench) {
    let ear = bench.listen();
    ear.until("the connection", |events| events.contains(&BrokerEvent::Up)).await;
    bench.enqueue("a").await;
    ear.until("the wake-up", |events| events.contains(&BrokerEvent::Wake)).await;
}
