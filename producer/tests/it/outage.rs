//! Redis absent at the start, restarted in the middle, and cut between the deed and its reply.

use carillon_harness::{Proxy, RedisServer, eventually};

use crate::{DEADLINE, bodies, claim_all, numbers, producer};

#[tokio::test]
async fn waits_for_a_redis_that_is_absent_at_the_start() {
    let server = RedisServer::start();
    server.stop();
    let mut producer = producer(&server.url(), &["--interval", "1ms", "--count", "3"]);
    producer.wait_line("not pushed yet").await;
    server.start_again();
    assert_eq!(producer.wait_exit(DEADLINE).await, 0);
    assert_eq!(numbers(&claim_all(&server).await), [1, 2, 3]);
}

#[tokio::test]
async fn a_redis_that_restarts_in_the_middle_costs_nothing() {
    let server = RedisServer::start_durable();
    let mut producer = producer(&server.url(), &["--interval", "2ms", "--count", "120"]);
    for reached in ["number=20 ", "number=60 "] {
        producer.wait_line(reached).await;
        server.start_again();
    }
    assert_eq!(producer.wait_exit(DEADLINE).await, 0);
    let expected: Vec<_> = (1..=120).collect();
    assert_eq!(numbers(&claim_all(&server).await), expected);
}

#[tokio::test]
async fn a_push_whose_reply_was_lost_is_repeated_and_shown_once() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr()).await;
    let mut producer = producer(&format!("redis://{}", proxy.addr()), &["--stdin"]);
    producer.write("one\n");
    eventually("the first is there", DEADLINE, async || waiting(&server) == 1).await;
    proxy.lose_replies_after(0);
    producer.write("two\nthree\n");
    // Lines that come together may be pushed together or one after the other.
    eventually("another is there", DEADLINE, async || waiting(&server) > 1).await;
    proxy.pass();
    producer.close_stdin();
    assert_eq!(producer.wait_exit(DEADLINE).await, 0);
    assert!(waiting(&server) > 3, "something was pushed twice");
    assert_eq!(bodies(&claim_all(&server).await), ["one", "two", "three"]);
}

#[tokio::test]
async fn a_connection_that_goes_dead_is_noticed() {
    let server = RedisServer::start();
    let proxy = Proxy::start(server.addr()).await;
    let mut producer =
        producer(&format!("redis://{}", proxy.addr()), &["--interval", "5ms", "--count", "40"]);
    producer.wait_line("number=10 ").await;
    proxy.black_hole_current();
    assert_eq!(producer.wait_exit(DEADLINE).await, 0);
    let expected: Vec<_> = (1..=40).collect();
    assert_eq!(numbers(&claim_all(&server).await), expected);
}

fn waiting(server: &RedisServer) -> usize {
    server.cli(&["LLEN", "Notification-List"]).parse().unwrap()
}
