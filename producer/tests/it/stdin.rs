use std::time::Duration;

use carillon_broker::Broker;
use carillon_harness::{RedisServer, hostile};
use carillon_producer::push_lines;
use carillon_protocol::Audience;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::{DEADLINE, bodies, claim, claim_all, producer};

#[tokio::test]
async fn all_lines_arrive_once_each_and_in_order_over_restarts() {
    const LINES: usize = 6_000;
    let server = RedisServer::start_durable();
    let mut producer = producer(&server.url(), &["--stdin"]);
    for first in (0..LINES).step_by(LINES / 3) {
        let third: String = (first..first + LINES / 3).map(|number| format!("line {number}\n")).collect();
        if first == LINES / 3 {
            server.stop();
        }
        producer.write(&third);
        server.start_again();
    }
    producer.close_stdin();
    assert_eq!(producer.wait_exit(DEADLINE).await, 0);
    let expected: Vec<_> = (0..LINES).map(|number| format!("line {number}")).collect();
    assert_eq!(bodies(&claim_all(&server).await), expected);
}

#[tokio::test]
async fn bad_lines_are_named_and_the_others_pushed() {
    let server = RedisServer::shared();
    let mut producer = producer(&server.url(), &["--stdin", "--to", "topic:news"]);
    producer.write("plain\n{\"title\":\"json\",\"to\":{\"user\":\"7\"}}\n\n{broken\n{\"body\":7}\nlast");
    producer.close_stdin();
    assert_eq!(producer.wait_exit(DEADLINE).await, 1);
    let lines = producer.stderr();
    for (line, fault) in [("line=4", "not a notification"), ("line=5", "body: ")] {
        assert!(lines.iter().any(|lines| lines.contains(line) && lines.contains(fault)), "{lines:?}");
    }
    let last = lines.last().unwrap();
    assert_eq!(last, "producer: 2 of 5 lines are not notifications and were not pushed");

    let notifications = claim_all(&server).await;
    assert_eq!(bodies(&notifications), ["plain", "", "last"]);
    assert_eq!(notifications.iter().map(|one| one.title.as_str()).collect::<Vec<_>>(), ["", "json", ""]);
    let audiences: Vec<_> = notifications.iter().map(|one| one.to.to_string()).collect();
    assert_eq!(audiences, ["topic:news", "user:7", "topic:news"]);
}

#[tokio::test]
async fn a_signal_ends_it_and_it_says_how_far_it_came() {
    let server = RedisServer::shared();
    let mut producer = producer(&server.url(), &["--stdin"]);
    producer.write("one\ntwo\n");
    carillon_harness::eventually("both are pushed", DEADLINE, async || {
        server.cli(&["LLEN", "Notification-List"]) == "2"
    })
    .await;
    producer.sigterm();
    assert_eq!(producer.wait_exit(DEADLINE).await, 0, "though the input is still open");
    let done = producer.wait_line("done").await;
    assert!(done.contains("pushed=2") && done.contains("line.last=2"), "{done}");
}

/// A line in hand while Redis is away, and a stop: `back_after` says when Redis comes back.
async fn stopped_with_a_line_in_hand(back_after: Duration) -> (anyhow::Result<()>, usize) {
    let (broker, faults) = Broker::memory(std::sync::Arc::new(|| 1_800_000_000_000));
    let stop = CancellationToken::new();
    let (mut input, output) = tokio::io::duplex(1_024);
    let script = async {
        input.write_all(b"one\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        faults.go_away();
        input.write_all(b"two\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        input.write_all(b"three\n").await.unwrap();
        stop.cancel();
        tokio::time::sleep(back_after).await;
        faults.come_back();
    };
    let (ended, ()) = tokio::join!(push_lines(&broker, &Audience::Everyone, output, &stop), script);
    (ended, claim(&broker).await.len())
}

#[tokio::test(start_paused = true)]
async fn the_line_in_hand_is_still_pushed_for_a_while_after_the_stop() {
    let (ended, pushed) = stopped_with_a_line_in_hand(Duration::from_secs(1)).await;
    ended.unwrap();
    assert_eq!(pushed, 2, "the third was never taken");

    let (ended, pushed) = stopped_with_a_line_in_hand(Duration::from_secs(3_600)).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.starts_with("1 lines are pushed; lines 2 to 2 (1 good ones) may not be: "), "{error}");
    assert_eq!(pushed, 1);
}

#[tokio::test]
async fn a_line_that_programs_read_differently_is_a_bad_line_and_never_goes_to_everyone() {
    let server = RedisServer::shared();
    let mut producer = producer(&server.url(), &["--stdin", "--to", "user:ann"]);
    // A line ends where a value has an end of line.
    let all: Vec<_> = hostile().into_iter().filter(|one| !one.json.contains(&b'\n')).collect();
    for one in &all {
        producer.write_bytes(&one.within(r#"{"body":"b","data":"#, "}\n"));
    }
    producer.write_bytes("\u{feff}{\"body\":\"behind a mark\"}\n".as_bytes());
    producer.close_stdin();
    assert_eq!(producer.wait_exit(DEADLINE).await, 1);
    let bad = all.iter().filter(|one| !one.taken).count();
    let lines = producer.stderr();
    let counted =
        format!("producer: {bad} of {} lines are not notifications and were not pushed", all.len() + 1);
    assert_eq!(lines.last(), Some(&counted), "{lines:?}");
    let claimed = claim_all(&server).await;
    assert_eq!(claimed.len(), all.len() - bad + 1, "what is pushed, the claim takes");
    assert!(claimed.iter().all(|one| one.to == Audience::User("ann".into())));
}
