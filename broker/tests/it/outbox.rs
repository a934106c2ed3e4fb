use std::collections::BTreeMap;

use carillon_broker::limits::{
    OUTBOX_ANONYMOUS_MAX, OUTBOX_KEEP_MS, OUTBOX_LEASE_MS, OUTBOX_LINE_MAX, OUTBOX_MAX, OUTBOX_PAUSE_MAX_MS,
    OUTBOX_SILENT_MAX, OUTBOX_USER_MAX,
};
use carillon_broker::{BrokerError, DeadList, GivenUp, Lease, OutboxError, Outgoing, Speaker, UNDELIVERABLE};
use carillon_protocol::Audience;

use crate::bench::{Bench, claimed, text};
use crate::on_both_engines;

on_both_engines!(
    messages_of_a_line_leave_in_their_order_one_at_a_time,
    lines_are_independent,
    a_message_that_waits_is_not_added_twice,
    a_full_outbox_and_a_full_line_refuse_and_have_room_again,
    a_postponed_message_holds_its_line_until_it_is_due,
    a_replica_that_falls_silent_loses_its_messages_and_another_sends_them,
    an_abandoned_message_is_in_the_dead_list_and_its_line_continues,
    a_message_that_silences_every_replica_is_over,
    a_line_pauses_as_one_and_what_is_older_than_a_day_is_over,
    people_who_are_not_signed_in_have_a_fifth_of_the_outbox,
    a_user_has_so_many_messages_in_all_lines_together,
    counts_of_an_earlier_release_refuse_no_client,
    what_seems_due_later_than_the_longest_pause_is_due_now,
    racing_replicas_send_each_message_once_and_each_line_in_order,
    a_lost_reply_loses_no_message,
);

fn line(name: &str) -> Audience {
    Audience::Session(name.to_owned())
}

/// The application does not want it.
fn refused<'a>(replica: &'a str, detail: &'a str) -> GivenUp<'a> {
    GivenUp { replica, detail, answered: true, notice: r#"{"id":"n","body":"not delivered"}"# }
}

impl Bench {
    async fn send_out(&self, name: &str, id: &str) {
        let message = format!("message {id}");
        self.broker.send_out(&line(name), id, message.as_bytes(), Speaker::User("ann")).await.unwrap();
    }

    /// Adds members to a set of ours, by the name behind the prefix.
    pub(crate) fn add_to_set(&self, name: &str, members: &[String]) {
        let key = format!("{}{name}", self.settings().names.prefix());
        let words = ["SADD", &key].into_iter().chain(members.iter().map(String::as_str));
        self.run(&words.collect::<Vec<_>>());
    }

    async fn outgoing(&self, lines: usize) -> Vec<Outgoing> {
        self.settled(async || self.broker.take_outgoing(lines).await).await
    }

    /// Takes what is due, as its ids and attempts.
    async fn due(&self) -> Vec<(String, u32)> {
        self.outgoing(10).await.into_iter().map(|of| (of.id, of.attempt)).collect()
    }

    async fn done(&self, of: &Outgoing) -> Lease {
        self.settled(async || self.broker.outgoing_done(of).await).await
    }
}

fn due(ids: &[&str]) -> Vec<(String, u32)> {
    ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
}

async fn messages_of_a_line_leave_in_their_order_one_at_a_time(bench: Bench) {
    assert_eq!(bench.due().await, []);
    for id in ["c", "a", "b"] {
        bench.send_out("x", id).await;
    }
    for id in ["c", "a", "b"] {
        let taken = bench.outgoing(10).await;
        let [of] = taken.as_slice() else { panic!("one at a time: {taken:?}") };
        assert_eq!((&of.line, of.id.as_str(), of.attempt), (&line("x"), id, 1));
        assert_eq!(text(&of.message), format!("message {id}"));
        assert_eq!(bench.due().await, [], "the next waits for it");
        assert_eq!(bench.done(of).await, Lease::Held);
        assert_eq!(bench.done(of).await, Lease::Lost, "only once");
    }
    assert_eq!(bench.due().await, []);
    bench.send_out("x", "c").await;
    assert_eq!(bench.due().await, due(&["c"]), "what is done is forgotten");
}

async fn lines_are_independent(bench: Bench) {
    for (name, id) in [("z", "z1"), ("y", "y1"), ("z", "z2"), ("x", "x1"), ("y", "y2")] {
        bench.send_out(name, id).await;
    }
    let two = bench.outgoing(2).await;
    assert_eq!(two.iter().map(|of| of.id.as_str()).collect::<Vec<_>>(), ["z1", "y1"], "the first to wait");
    assert_eq!(bench.due().await, due(&["x1"]), "none of those that are held");
    bench.done(&two[1]).await;
    assert_eq!(bench.due().await, due(&["y2"]), "while the first of another line is still on its way");
}

async fn a_message_that_waits_is_not_added_twice(bench: Bench) {
    bench.send_out("x", "a").await;
    bench.send_out("x", "a").await;
    let taken = bench.outgoing(10).await;
    bench.send_out("x", "a").await;
    bench.done(&taken[0]).await;
    assert_eq!(bench.due().await, []);
}

async fn a_full_outbox_and_a_full_line_refuse_and_have_room_again(bench: Bench) {
    let send = async |line_of: usize, id: usize| {
        let user = line_of.to_string();
        bench.broker.send_out(&line(&user), &id.to_string(), b"m", Speaker::User(&user)).await
    };
    for name in 0..OUTBOX_MAX / OUTBOX_LINE_MAX {
        let ids = name * OUTBOX_LINE_MAX..(name + 1) * OUTBOX_LINE_MAX;
        let sent = futures_util::future::join_all(ids.map(|id| send(name, id))).await;
        assert!(sent.iter().all(Result::is_ok));
        if name == 0 {
            assert!(matches!(send(0, OUTBOX_MAX).await, Err(OutboxError::LineFull)));
            assert!(send(0, 7).await.is_ok(), "what waits already is no more");
        }
    }
    assert!(matches!(send(OUTBOX_MAX, OUTBOX_MAX).await, Err(OutboxError::Full)), "of a new line too");
    let first = bench.outgoing(1).await;
    bench.done(&first[0]).await;
    send(OUTBOX_MAX, OUTBOX_MAX).await.unwrap();
    assert!(matches!(send(0, OUTBOX_MAX + 1).await, Err(OutboxError::Full)));
}

async fn a_postponed_message_holds_its_line_until_it_is_due(bench: Bench) {
    for (name, id) in [("x", "a"), ("x", "b"), ("y", "c")] {
        bench.send_out(name, id).await;
    }
    let taken = bench.outgoing(10).await;
    assert_eq!(bench.broker.postpone_outgoing(&taken[0], 60_000).await.unwrap(), Lease::Held);
    bench.done(&taken[1]).await;
    bench.pass_time(50_000);
    assert_eq!(bench.due().await, [], "longer than a lease");
    bench.pass_time(10_000);
    let again = bench.outgoing(10).await;
    assert_eq!((again[0].id.as_str(), again[0].attempt), ("a", 2));
    assert_eq!(bench.broker.postpone_outgoing(&taken[0], 0).await.unwrap(), Lease::Lost, "an old attempt");
    assert_eq!(bench.due().await, []);
    bench.done(&again[0]).await;
    assert_eq!(bench.due().await, due(&["b"]), "the count is the message's own");
}

async fn a_replica_that_falls_silent_loses_its_messages_and_another_sends_them(bench: Bench) {
    for (name, id) in [("x", "a"), ("x", "b"), ("y", "c")] {
        bench.send_out(name, id).await;
    }
    let killed = bench.outgoing(10).await;
    bench.pass_time(OUTBOX_LEASE_MS - 5_000);
    assert_eq!(bench.due().await, []);
    bench.pass_time(5_000);
    let other = bench.outgoing(10).await;
    let again: Vec<_> = other.iter().map(|of| (of.id.as_str(), of.attempt)).collect();
    assert_eq!(again, [("a", 2), ("c", 2)], "the same messages in the same order");
    // The first one was only slow.
    assert_eq!(bench.done(&killed[0]).await, Lease::Lost);
    assert_eq!(bench.broker.give_up_outgoing(&killed[0], refused("bff", "d")).await.unwrap(), Lease::Lost);
    assert_eq!(bench.due().await, []);
    assert_eq!(bench.done(&other[0]).await, Lease::Held);
    assert_eq!(bench.done(&killed[0]).await, Lease::Lost, "nor does it take the next one's place");
    assert_eq!(bench.due().await, due(&["b"]));
}

async fn an_abandoned_message_is_in_the_dead_list_and_its_line_continues(bench: Bench) {
    let (long, raw) = ("y".repeat(2 * 1_024), "{\"type\":\"message\"} \u{0} é");
    bench.broker.send_out(&line("x"), "a", raw.as_bytes(), Speaker::User("ann")).await.unwrap();
    bench.broker.send_out(&line("x"), "b", long.as_bytes(), Speaker::User("ann")).await.unwrap();
    bench.send_out("x", "c").await;
    for detail in ["the application answered 400", "the application answered 413"] {
        let taken = bench.outgoing(10).await;
        assert_eq!(
            bench.broker.give_up_outgoing(&taken[0], refused("bff-7", detail)).await.unwrap(),
            Lease::Held
        );
    }
    let dead = bench.broker.dead(DeadList::Outbox).await.unwrap();
    let found: Vec<_> = dead.iter().map(|dead| (dead.detail.as_str(), text(&dead.raw))).collect();
    assert_eq!(
        found,
        [("the application answered 400", raw.to_owned()), ("the application answered 413", long.clone())]
    );
    assert!(dead.iter().all(|dead| dead.reason == UNDELIVERABLE && dead.claimed_by == "bff-7"));
    assert_eq!(bench.due().await, due(&["c"]));
    let entries = claimed(&bench.drain("bff").await);
    assert_eq!(entries.len(), 1, "the sender is notified, once for a repeated id: {entries:?}");
    assert!(entries[0].contains("not delivered"), "{entries:?}");
}

async fn a_message_that_silences_every_replica_is_over(bench: Bench) {
    bench.send_out("x", "a").await;
    bench.send_out("x", "b").await;
    for silent in 0..OUTBOX_SILENT_MAX {
        let taken = bench.outgoing(10).await;
        assert_eq!((taken[0].id.as_str(), taken[0].silent, taken[0].is_over()), ("a", silent, None));
        bench.pass_time(OUTBOX_LEASE_MS);
    }
    let taken = bench.outgoing(10).await;
    let why = taken[0].is_over().expect("it is over");
    assert!(why.contains("10 replicas"), "{why}");
    assert_eq!(bench.broker.give_up_outgoing(&taken[0], refused("bff-2", &why)).await.unwrap(), Lease::Held);
    let dead = bench.broker.dead(DeadList::Outbox).await.unwrap();
    assert_eq!((dead[0].reason.as_str(), dead[0].claimed_by.as_str()), (UNDELIVERABLE, "bff-2"));
    assert_eq!(bench.due().await, due(&["b"]));
}

async fn a_line_pauses_as_one_and_what_is_older_than_a_day_is_over(bench: Bench) {
    for id in ["a", "b", "c"] {
        bench.send_out("x", id).await;
    }
    for failures in 1..=OUTBOX_SILENT_MAX + 5 {
        let taken = bench.outgoing(10).await;
        let [of] = taken.as_slice() else { panic!("one attempt for the line: {taken:?}") };
        assert_eq!((of.id.as_str(), of.failures, of.silent, of.is_over()), ("a", failures, 0, None));
        assert_eq!(bench.broker.postpone_outgoing(of, 60_000).await.unwrap(), Lease::Held);
        bench.pass_time(60_000);
    }
    bench.send_out("x", "young").await;
    bench.pass_time(OUTBOX_KEEP_MS - 60_000);
    // The rest of the line is as old, and needs no attempts of its own.
    for id in ["a", "b", "c"] {
        let taken = bench.outgoing(10).await;
        assert_eq!(taken[0].id, id);
        assert!(taken[0].waited_ms >= OUTBOX_KEEP_MS && taken[0].is_over().is_some(), "{taken:?}");
        let over = GivenUp { answered: false, ..refused("bff", "a day") };
        assert_eq!(bench.broker.give_up_outgoing(&taken[0], over).await.unwrap(), Lease::Held);
    }
    let taken = bench.outgoing(10).await;
    assert_eq!((taken[0].id.as_str(), taken[0].is_over()), ("young", None));
    assert!(taken[0].failures > OUTBOX_SILENT_MAX, "the line goes on pausing: {taken:?}");
    bench.done(&taken[0]).await;
    // Nobody was there for a day: that is no failure of the application's.
    bench.send_out("x", "d").await;
    bench.pass_time(2 * OUTBOX_KEEP_MS);
    let taken = bench.outgoing(10).await;
    assert_eq!((taken[0].failures, taken[0].is_over()), (1, None));
}

async fn people_who_are_not_signed_in_have_a_fifth_of_the_outbox(bench: Bench) {
    let send = async |name: usize, id: usize, by: Speaker<'_>| {
        bench.broker.send_out(&line(&name.to_string()), &id.to_string(), b"m", by).await
    };
    for name in 0..OUTBOX_ANONYMOUS_MAX / OUTBOX_LINE_MAX {
        let ids = name * OUTBOX_LINE_MAX..(name + 1) * OUTBOX_LINE_MAX;
        let sent = futures_util::future::join_all(ids.map(|id| send(name, id, Speaker::Anonymous))).await;
        assert!(sent.iter().all(Result::is_ok));
    }
    let (name, id) = (OUTBOX_MAX, OUTBOX_MAX);
    assert!(matches!(send(name, id, Speaker::Anonymous).await, Err(OutboxError::AnonymousFull)));
    assert!(send(0, 7, Speaker::Anonymous).await.is_ok(), "what waits already is no more");
    send(name, id, Speaker::User("ann")).await.unwrap();
    let first = bench.outgoing(1).await;
    bench.done(&first[0]).await;
    send(name, id + 1, Speaker::Anonymous).await.unwrap();
    assert!(matches!(send(name, id + 2, Speaker::Anonymous).await, Err(OutboxError::AnonymousFull)));
}

async fn a_user_has_so_many_messages_in_all_lines_together(bench: Bench) {
    let send = async |name: usize, id: usize, user: &str| {
        bench.broker.send_out(&line(&name.to_string()), &id.to_string(), b"m", Speaker::User(user)).await
    };
    for id in 0..OUTBOX_USER_MAX {
        send(id, id, "ann").await.unwrap();
    }
    let (name, id) = (OUTBOX_USER_MAX, OUTBOX_USER_MAX);
    assert!(matches!(send(name, id, "ann").await, Err(OutboxError::UserFull)), "in a new session");
    assert!(send(0, 7, "ann").await.is_ok(), "what waits already is no more");
    send(name, id, "bob").await.unwrap();
    bench.broker.send_out(&line("x"), "x", b"m", Speaker::Anonymous).await.unwrap();
    let first = bench.outgoing(2).await;
    bench.done(&first[0]).await;
    bench.broker.give_up_outgoing(&first[1], refused("bff-1", "a test")).await.unwrap();
    for id in [id + 1, id + 2] {
        send(id, id, "ann").await.unwrap();
    }
    assert!(matches!(send(name, id + 3, "ann").await, Err(OutboxError::UserFull)));
}

async fn counts_of_an_earlier_release_refuse_no_client(bench: Bench) {
    let left: Vec<_> = (0..OUTBOX_USER_MAX).map(|n| format!("gone-{n}")).collect();
    bench.add_to_set("outbox:of:user:ann", &left);
    bench.broker.send_out(&line("x"), "a", b"m", Speaker::User("ann")).await.unwrap();
}

async fn what_seems_due_later_than_the_longest_pause_is_due_now(bench: Bench) {
    bench.send_out("x", "a").await;
    let taken = bench.outgoing(10).await;
    // A pause that is asked for is never longer.
    bench.broker.postpone_outgoing(&taken[0], 100 * OUTBOX_PAUSE_MAX_MS).await.unwrap();
    bench.pass_time(OUTBOX_PAUSE_MAX_MS - 5_000);
    assert_eq!(bench.due().await, []);
    bench.pass_time(5_000);
    let taken = bench.outgoing(10).await;
    bench.broker.postpone_outgoing(&taken[0], OUTBOX_PAUSE_MAX_MS).await.unwrap();
    // The clock was ahead when that was written, and is put right.
    bench.pass_time_back(60_000);
    assert_eq!(bench.due().await.len(), 1);
}

async fn racing_replicas_send_each_message_once_and_each_line_in_order(bench: Bench) {
    for n in 0..20 {
        let ids = (0..10).map(|name| (name.to_string(), format!("{name}-{n}")));
        let sending: Vec<_> = ids.collect();
        futures_util::future::join_all(sending.iter().map(|(name, id)| bench.send_out(name, id))).await;
    }
    let arrived = std::sync::Mutex::new(BTreeMap::<Audience, Vec<String>>::new());
    let replica = async || {
        let mut count = 0;
        loop {
            let taken = bench.outgoing(3).await;
            if taken.is_empty() && arrived.lock().unwrap().values().map(Vec::len).sum::<usize>() == 200 {
                return count;
            }
            for of in taken {
                arrived.lock().unwrap().entry(of.line.clone()).or_default().push(of.id.clone());
                assert_eq!(bench.done(&of).await, Lease::Held);
                count += 1;
            }
            tokio::task::yield_now().await;
        }
    };
    let (a, b) = tokio::join!(replica(), replica());
    assert!(a > 0 && b > 0 && a + b == 200, "{a} and {b}");
    for (line, ids) in arrived.into_inner().unwrap() {
        let name = line.name().unwrap();
        assert_eq!(ids, (0..20).map(|n| format!("{name}-{n}")).collect::<Vec<_>>());
    }
}

async fn a_lost_reply_loses_no_message(bench: Bench) {
    let (broker, x) = (&bench.broker, line("x"));
    let lost = bench.lose_the_reply_of(broker.send_out(&x, "a", b"m", Speaker::User("ann"))).await;
    assert!(matches!(lost, Err(OutboxError::Broker(BrokerError::Away(_)))));
    bench.settled(async || broker.tail().await).await;
    bench.send_out("x", "a").await;
    bench.send_out("x", "b").await;
    assert!(bench.lose_the_reply_of(broker.take_outgoing(10)).await.is_err());
    assert_eq!(bench.due().await, []);
    bench.pass_time(OUTBOX_LEASE_MS);
    let taken = bench.outgoing(10).await;
    assert_eq!((taken[0].id.as_str(), taken[0].attempt), ("a", 2));
    assert!(bench.lose_the_reply_of(broker.outgoing_done(&taken[0])).await.is_err());
    assert_eq!(bench.done(&taken[0]).await, Lease::Lost, "it is done already");
    assert_eq!(bench.due().await, due(&["b"]));
}
