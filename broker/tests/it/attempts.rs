//! Who holds a job, how often it is begun, and what ends it.

use carillon_broker::limits::{JOB_ATTEMPTS_MAX, JOB_LEASE_MS, JOB_PAUSE_MS};
use carillon_broker::{BrokerError, EnqueueError, Lease};
use carillon_protocol::JobStatus;
use serde_json::json;

use crate::bench::Bench;
use crate::jobs::{at, new, of_ann};
use crate::on_both_engines;

on_both_engines!(
    a_worker_that_falls_silent_loses_its_job_and_another_ends_it,
    a_report_renews_the_lease_and_progress_never_falls,
    a_repeated_command_after_a_lost_reply_has_one_effect,
    a_job_whose_workers_all_fall_silent_is_given_up,
    a_failed_attempt_is_tried_again_after_a_pause_that_grows,
    a_job_that_was_given_back_is_due_at_once_and_has_not_failed,
);

async fn a_worker_that_falls_silent_loses_its_job_and_another_ends_it(bench: Bench) {
    bench.enqueue("a").await;
    bench.work("killed").await;
    bench.broker.report_job(&of_ann("a"), 1, 60).await.unwrap();
    bench.pass_time(JOB_LEASE_MS - 5_000);
    assert_eq!(bench.take("other").await, None, "the lease still runs");
    bench.pass_time(5_000);
    assert_eq!(bench.work("other").await, ("a".into(), 2));
    // The first one was only slow, and every call of it returns this.
    assert_eq!(bench.broker.report_job(&of_ann("a"), 1, 90).await.unwrap(), Lease::Lost);
    assert_eq!(bench.broker.finish_job(&of_ann("a"), 1, "1").await.unwrap(), Lease::Lost);
    assert_eq!(bench.broker.fail_job(&of_ann("a"), 1, "1").await.unwrap(), Lease::Lost);
    assert_eq!(bench.stands("a").await.progress, 0, "nor had it an effect");
    assert_eq!(bench.broker.finish_job(&of_ann("a"), 2, "2").await.unwrap(), Lease::Held);
    assert_eq!(bench.broker.finish_job(&of_ann("a"), 1, "1").await.unwrap(), Lease::Lost);
    assert_eq!(bench.stands("a").await.result.as_deref(), Some("2"));
    assert_eq!(
        bench.new_states().await,
        [at("queued", 0), at("running", 0), at("running", 60), at("running", 0), at("done", 100)]
    );
}

async fn a_report_renews_the_lease_and_progress_never_falls(bench: Bench) {
    bench.enqueue("a").await;
    bench.work("w").await;
    // A slow worker, of which nobody takes the job, has not lost it.
    for (progress, stands) in [(10, 10), (10, 10), (5, 10), (200, 100)] {
        bench.pass_time(JOB_LEASE_MS - 5_000);
        assert_eq!(bench.broker.report_job(&of_ann("a"), 1, progress).await.unwrap(), Lease::Held);
        assert_eq!(bench.stands("a").await.progress, stands);
        assert_eq!(bench.take("other").await, None);
    }
    bench.pass_time(JOB_LEASE_MS);
    assert_eq!(bench.broker.report_job(&of_ann("a"), 1, 100).await.unwrap(), Lease::Held);
    assert_eq!(bench.take("other").await, None);
    assert_eq!(
        bench.new_states().await,
        [at("queued", 0), at("running", 0), at("running", 10), at("running", 100)]
    );
}

async fn a_repeated_command_after_a_lost_reply_has_one_effect(bench: Bench) {
    let (job, broker) = (new("a"), &bench.broker);
    let lost = bench.lose_the_reply_of(broker.enqueue_job(&job)).await;
    assert!(matches!(lost, Err(EnqueueError::Broker(BrokerError::Away(_)))), "{lost:?}");
    bench.settled(async || broker.tail().await).await;
    bench.enqueue("a").await;
    assert!(bench.lose_the_reply_of(broker.take_job("w")).await.is_err());
    assert_eq!(bench.take("w").await, None, "it is held, by someone who does not know");
    bench.pass_time(JOB_LEASE_MS);
    assert_eq!(bench.work("w").await, ("a".into(), 2));
    assert!(bench.lose_the_reply_of(broker.report_job(&of_ann("a"), 2, 40)).await.is_err());
    assert_eq!(bench.settled(async || broker.report_job(&of_ann("a"), 2, 40).await).await, Lease::Held);
    assert!(bench.lose_the_reply_of(broker.fail_job(&of_ann("a"), 2, "1")).await.is_err());
    assert_eq!(bench.settled(async || broker.fail_job(&of_ann("a"), 2, "1").await).await, Lease::Held);
    bench.pass_time(4 * JOB_PAUSE_MS);
    assert_eq!(bench.work("w").await, ("a".into(), 3));
    assert!(bench.lose_the_reply_of(broker.finish_job(&of_ann("a"), 3, "2")).await.is_err());
    assert_eq!(bench.settled(async || broker.finish_job(&of_ann("a"), 3, "2").await).await, Lease::Held);
    assert_eq!(bench.stands("a").await.result.as_deref(), Some("2"));
    let reports: Vec<_> = bench.new_states().await.into_iter().map(|(status, _)| status).collect();
    assert_eq!(reports, ["queued", "running", "running", "running", "queued", "running", "done"]);
}

async fn a_job_whose_workers_all_fall_silent_is_given_up(bench: Bench) {
    bench.enqueue("a").await;
    bench.enqueue("b").await;
    for attempt in 1..=JOB_ATTEMPTS_MAX {
        assert_eq!(bench.work("w").await, ("a".into(), attempt));
        bench.broker.finish_job(&of_ann("b"), 1, "1").await.unwrap();
        assert_eq!(bench.take("w").await.is_some(), attempt == 1, "the other one");
        bench.broker.finish_job(&of_ann("b"), 1, "1").await.unwrap();
        bench.pass_time(JOB_LEASE_MS);
    }
    bench.enqueue("c").await;
    let taken = bench.broker.take_job("w").await.unwrap();
    assert_eq!((taken.given_up, taken.job.map(|job| job.new.id)), (1, Some("c".into())), "in one look");
    let job = bench.stands("a").await;
    assert_eq!(job.status, JobStatus::Failed);
    assert!(job.result.unwrap().contains("3 attempts"));
    assert_eq!(bench.broker.finish_job(&of_ann("a"), JOB_ATTEMPTS_MAX, "1").await.unwrap(), Lease::Lost);
    let last = bench.reports().await;
    let last = last.iter().rfind(|report| report["data"]["job"]["id"] == "a").unwrap();
    assert_eq!((&last["severity"], &last["body"]), (&json!("error"), &json!("failed")));
}

async fn a_failed_attempt_is_tried_again_after_a_pause_that_grows(bench: Bench) {
    bench.enqueue("a").await;
    for (attempt, pause_ms) in [(1, JOB_PAUSE_MS), (2, 2 * JOB_PAUSE_MS)] {
        assert_eq!(bench.work("w").await, ("a".into(), attempt));
        assert_eq!(bench.broker.fail_job(&of_ann("a"), attempt, r#""no disk""#).await.unwrap(), Lease::Held);
        let job = bench.stands("a").await;
        assert_eq!((job.status, job.result.as_deref()), (JobStatus::Queued, Some(r#""no disk""#)));
        assert_eq!(
            bench.broker.report_job(&of_ann("a"), attempt, 90).await.unwrap(),
            Lease::Lost,
            "it gave it back"
        );
        bench.pass_time(pause_ms - 500);
        assert_eq!(bench.take("w").await, None);
        bench.pass_time(500);
    }
    let job = bench.take("w").await.unwrap();
    assert_eq!(job.result, None, "a new attempt has no result");
    assert_eq!(bench.broker.fail_job(&of_ann("a"), 3, r#""no disk""#).await.unwrap(), Lease::Held);
    let job = bench.stands("a").await;
    assert_eq!((job.status, job.result.as_deref()), (JobStatus::Failed, Some(r#""no disk""#)));
    bench.pass_time(JOB_LEASE_MS * 10);
    assert_eq!(bench.take("w").await, None);
}

async fn a_job_that_was_given_back_is_due_at_once_and_has_not_failed(bench: Bench) {
    bench.enqueue("a").await;
    for attempt in 1..=2 * JOB_ATTEMPTS_MAX {
        assert_eq!(bench.work("w").await, ("a".into(), attempt));
        for _ in 0..2 {
            assert_eq!(
                bench.broker.release_job(&of_ann("a"), attempt).await.unwrap(),
                Lease::Held,
                "also when repeated"
            );
        }
        assert_eq!(bench.stands("a").await.status, JobStatus::Queued);
    }
    for failures in 1..=JOB_ATTEMPTS_MAX {
        let (_, attempt) = bench.work("w").await;
        assert_eq!(
            bench.broker.release_job(&of_ann("a"), attempt - 1).await.unwrap(),
            Lease::Lost,
            "another's"
        );
        assert_eq!(bench.broker.fail_job(&of_ann("a"), attempt, "1").await.unwrap(), Lease::Held);
        let ended = bench.stands("a").await.status == JobStatus::Failed;
        assert_eq!(ended, failures == JOB_ATTEMPTS_MAX);
        assert_eq!(bench.broker.release_job(&of_ann("a"), attempt).await.unwrap() == Lease::Lost, ended);
        bench.pass_time(JOB_PAUSE_MS << 8);
    }
}
