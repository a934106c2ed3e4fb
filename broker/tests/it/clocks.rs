//! A server whose clock is wrong for a moment. (A real one cannot be set wrong here; the scripts are the same.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use carillon_broker::{Broker, FanOut, Faults, Job, NewJob, Speaker};
use carillon_protocol::{Audience, Cursor, Position};

use crate::bench::topic;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
const NOW_MS: u64 = 1_795_247_100_000;
/// What the script allows a clock to be ahead.
const SKEW_MS: u64 = 300_000;

fn broker() -> (Broker, Faults) {
    Broker::memory(Arc::new(|| NOW_MS))
}

async fn push(broker: &Broker, entry: &str) {
    broker.push(&[entry.as_bytes().to_vec()]).await.unwrap();
    broker.claim("bff", FanOut::All).await.unwrap();
}

#[tokio::test]
async fn three_days_ahead_trim_nothing_and_leave_positions_five_minutes_ahead() {
    let (broker, faults) = broker();
    let start = Cursor { position: Position::ZERO, ..broker.tail().await.unwrap() };
    for n in 0..5 {
        push(&broker, &format!("before {n}")).await;
    }
    faults.set_clock_ahead(3 * DAY_MS);
    for n in 0..5 {
        push(&broker, &format!("wrong {n}")).await;
    }
    faults.set_clock_ahead(0);
    push(&broker, "after").await;
    let page = broker.history(&[Audience::Everyone], &start, 100).await.unwrap();
    assert_eq!((page.entries.len(), page.gaps.len()), (11, 0));
    let last = page.entries.last().unwrap().stored.position;
    assert!(last.ms <= NOW_MS + SKEW_MS, "{last} is far ahead of {NOW_MS}");
    assert!(page.entries.is_sorted_by_key(|recalled| recalled.stored.position));
}

#[tokio::test]
async fn order_survives_a_clock_that_is_set_back() {
    let (broker, faults) = broker();
    push(&broker, "one").await;
    faults.set_clock_ahead(-3 * DAY_MS);
    push(&broker, "two").await;
    faults.set_clock_ahead(0);
    push(&broker, "three").await;
    let start = Cursor { position: Position::ZERO, ..broker.tail().await.unwrap() };
    let page = broker.history(&[Audience::Everyone], &start, 100).await.unwrap();
    let texts: Vec<_> = page.entries.iter().map(|recalled| recalled.stored.raw.as_slice()).collect();
    assert_eq!(texts, [&b"one"[..], b"two", b"three"]);
}

#[tokio::test]
async fn ids_are_forgotten_in_time_though_the_clock_was_ahead() {
    let passed_ms = Arc::new(AtomicU64::new(0));
    let passed = Arc::clone(&passed_ms);
    let (broker, faults) = Broker::memory(Arc::new(move || NOW_MS + passed.load(Ordering::SeqCst)));
    let entry = r#"{"id":"a","body":"b","to":{"topic":"t"}}"#;
    push(&broker, entry).await;
    faults.set_clock_ahead(3 * DAY_MS);
    push(&broker, "turns the sets").await;
    faults.set_clock_ahead(0);
    push(&broker, "sees the right time").await;
    // Two turns of ten minutes later nothing of it is left.
    for _ in 0..2 {
        passed_ms.fetch_add(11 * 60 * 1_000, Ordering::SeqCst);
        push(&broker, "turns the sets").await;
    }
    push(&broker, entry).await;
    let start = Cursor { position: Position::ZERO, ..broker.tail().await.unwrap() };
    assert_eq!(broker.history(&[topic("t")], &start, 10).await.unwrap().entries.len(), 2);
}

async fn enqueue(broker: &Broker, id: &str) -> Job {
    let one = Audience::User("one".into());
    let (id, name, input) = (id.to_owned(), "a job".to_owned(), "{}".to_owned());
    broker.enqueue_job(&NewJob { id, owner: one.clone(), to: one, name, input }).await.unwrap()
}

#[tokio::test]
async fn work_scheduled_by_a_wrong_clock_is_done_at_the_right_time() {
    let (broker, faults) = broker();
    let line = Audience::User("ann".into());
    faults.set_clock_ahead(3 * DAY_MS);
    broker.send_out(&line, "m", b"{}", Speaker::User("ann")).await.unwrap();
    enqueue(&broker, "new").await;
    enqueue(&broker, "held").await;
    broker.take_job("silent").await.unwrap().job.unwrap();
    faults.set_clock_ahead(0);
    assert_eq!(broker.take_outgoing(10).await.unwrap().len(), 1);
    let first = broker.take_job("bff").await.unwrap().job.map(|job| job.new.id);
    let second = broker.take_job("bff").await.unwrap().job.map(|job| job.new.id);
    assert!(first.is_some() && second.is_some(), "{first:?} {second:?}");
}

#[tokio::test]
async fn a_second_a_day_ahead_gives_up_no_message_and_one_from_then_is_as_old_as_it_is() {
    let passed_ms = Arc::new(AtomicU64::new(0));
    let passed = Arc::clone(&passed_ms);
    let (broker, faults) = Broker::memory(Arc::new(move || NOW_MS + passed.load(Ordering::SeqCst)));
    let line = Audience::User("ann".into());
    broker.send_out(&line, "m", b"{}", Speaker::User("ann")).await.unwrap();
    for ahead in [0, 3 * DAY_MS, 0] {
        faults.set_clock_ahead(ahead);
        passed_ms.fetch_add(60_000, Ordering::SeqCst);
        let taken = broker.take_outgoing(10).await.unwrap().remove(0);
        assert_eq!((taken.is_over(), taken.waited_ms <= 180_000), (None, true), "{taken:?}");
        broker.postpone_outgoing(&taken, 1_000).await.unwrap();
    }
    passed_ms.fetch_add(DAY_MS.unsigned_abs(), Ordering::SeqCst);
    let taken = broker.take_outgoing(10).await.unwrap().remove(0);
    assert!(taken.is_over().unwrap().contains("3 attempts"), "{taken:?}");
}
