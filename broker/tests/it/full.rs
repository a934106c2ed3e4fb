//! How many jobs wait or run, and what becomes of one more.

use carillon_broker::limits::{JOBS_ANONYMOUS_MAX, JOBS_MAX, JOBS_OWNER_MAX};
use carillon_broker::{EnqueueError, NewJob};
use carillon_protocol::{Audience, JobStatus};

use crate::bench::Bench;
use crate::jobs::{new, of_ann, one_of_many};
use crate::on_both_engines;

on_both_engines!(
    an_owner_has_so_many_jobs_that_wait_or_run_and_room_again_when_one_ends,
    a_full_queue_refuses_and_has_room_again_when_a_job_ends,
    owners_who_are_not_signed_in_have_a_fifth_of_the_queue,
);

async fn an_owner_has_so_many_jobs_that_wait_or_run_and_room_again_when_one_ends(bench: Bench) {
    for n in 0..JOBS_OWNER_MAX {
        bench.enqueue(&n.to_string()).await;
    }
    let more = async || bench.broker.enqueue_job(&new("more")).await;
    assert!(matches!(more().await, Err(EnqueueError::OwnerFull)));
    assert_eq!(bench.enqueue("0").await.status, JobStatus::Queued, "what is there already is no more");
    bench.broker.enqueue_job(&one_of_many("bob")).await.unwrap();
    bench.work("w").await;
    assert!(matches!(more().await, Err(EnqueueError::OwnerFull)), "one that runs counts");
    bench.broker.finish_job(&of_ann("0"), 1, "1").await.unwrap();
    assert_eq!(more().await.unwrap().status, JobStatus::Queued);
    assert!(matches!(bench.broker.enqueue_job(&new("yet another")).await, Err(EnqueueError::OwnerFull)));
}

async fn a_full_queue_refuses_and_has_room_again_when_a_job_ends(bench: Bench) {
    // The first is taken, and counts until it ends.
    bench.enqueue("first").await;
    bench.work("w").await;
    let all: Vec<_> = (1..JOBS_MAX).map(|n| one_of_many(&n.to_string())).collect();
    for jobs in all.chunks(500) {
        let enqueued = futures_util::future::join_all(jobs.iter().map(|job| bench.broker.enqueue_job(job)));
        assert!(enqueued.await.iter().all(Result::is_ok));
    }
    assert!(matches!(bench.broker.enqueue_job(&new("more")).await, Err(EnqueueError::Full)));
    assert!(bench.broker.enqueue_job(&one_of_many("7")).await.is_ok(), "what is there already is no more");
    bench.broker.finish_job(&of_ann("first"), 1, "1").await.unwrap();
    bench.enqueue("more").await;
    assert!(matches!(bench.broker.enqueue_job(&new("still more")).await, Err(EnqueueError::Full)));
}

async fn owners_who_are_not_signed_in_have_a_fifth_of_the_queue(bench: Bench) {
    let of_session = |n: usize| NewJob { owner: Audience::Session(n.to_string()), ..new("j") };
    let enqueue = async |n: usize| bench.broker.enqueue_job(&of_session(n)).await;
    for n in (0..JOBS_ANONYMOUS_MAX).step_by(500) {
        let enqueued = futures_util::future::join_all((n..n + 500).map(enqueue)).await;
        assert!(enqueued.iter().all(Result::is_ok));
    }
    let more = JOBS_ANONYMOUS_MAX;
    assert!(matches!(enqueue(more).await, Err(EnqueueError::AnonymousFull)), "of a new session");
    assert!(enqueue(7).await.is_ok(), "what is there already is no more");
    bench.enqueue("of a user").await;
    let first = bench.take("w").await.unwrap();
    assert!(matches!(enqueue(more).await, Err(EnqueueError::AnonymousFull)), "one that runs counts");
    bench.broker.finish_job(&first.handle, 1, "1").await.unwrap();
    assert!(enqueue(more).await.is_ok());
    // A worker with an earlier script does not count what ends.
    let left: Vec<_> = (0..JOBS_ANONYMOUS_MAX).map(|n| format!("gone-{n}")).collect();
    bench.add_to_set("jobs:anonymous", &left);
    assert!(matches!(enqueue(more + 1).await, Err(EnqueueError::AnonymousFull)));
    for _ in 0..JOBS_ANONYMOUS_MAX {
        let _ = enqueue(more + 1).await;
    }
    let second = bench.take("w").await.unwrap();
    bench.broker.finish_job(&second.handle, 1, "1").await.unwrap();
    assert!(enqueue(more + 2).await.is_ok());
}
