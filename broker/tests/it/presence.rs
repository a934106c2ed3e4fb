//! Who is online, by what the runs of replicas say.

use std::collections::BTreeMap;
use std::time::Duration;

use carillon_broker::limits::PRESENCE_BATCH_MAX_USERS;
use carillon_broker::{Beat, Beaten, BrokerError, BrokerEvent};
use carillon_harness::eventually;

use crate::bench::{Bench, DEADLINE, Ear, topic};
use crate::on_both_engines;

on_both_engines!(
    a_user_is_online_while_a_connection_is_left_on_any_replica,
    a_short_absence_is_not_reported,
    only_the_users_of_a_silent_run_go_offline,
    a_run_is_notified_when_the_lease_of_another_ends,
    after_an_outage_runs_have_time_to_come_back,
    a_run_that_ends_leaves_nothing_behind,
    many_users_go_in_batches,
    a_loss_is_reported,
    names_are_kept_as_they_are,
    a_replica_that_restarts_often_delays_no_leave,
    a_connect_and_disconnect_leaves_nothing_in_redis,
    random_comings_and_goings_add_up,
);

const LONG: Duration = Duration::from_secs(60);
/// Long enough for what a test says before it.
const SHORT: Duration = Duration::from_millis(300);

/// One run, its lease, and how long a leave waits.
#[derive(Clone, Copy)]
struct Run(&'static str, Duration, Duration);

impl Run {
    async fn report(self, bench: &Bench, changes: &[(&str, usize)]) -> Beaten {
        let Self(run, lease, grace) = self;
        let changes: Vec<_> = changes.iter().map(|(user, count)| ((*user).to_owned(), *count)).collect();
        let beat = Beat { run, lease, grace, changes: &changes, returns: false };
        bench.settled(async || bench.broker.beat(&beat).await).await
    }
}

/// Connections, and whether the user counts as online.
async fn presence(bench: &Bench, user: &str) -> (usize, bool) {
    let found = bench.settled(async || bench.broker.presence(&[user.to_owned()]).await).await;
    assert_eq!((found.len(), found[0].user.as_str()), (1, user));
    (found[0].connections, found[0].since_ms.is_some())
}

/// A listener for the presence of users.
async fn watch(bench: &Bench, users: &[&str]) -> Ear {
    let ear = bench.listen();
    for user in users {
        let audience = topic(&format!("presence:{user}"));
        ear.subscriptions.add(audience.clone());
        ear.until_subscribed(&audience).await;
    }
    ear
}

/// How often a coming or going of the user was announced.
async fn announced(bench: &Bench, ear: &Ear, user: &str) -> usize {
    ear.catch_up(bench).await;
    let of_user =
        |event: &&BrokerEvent| matches!(event, BrokerEvent::PresenceChanged { user: of } if of == user);
    ear.events().iter().filter(of_user).count()
}

async fn a_user_is_online_while_a_connection_is_left_on_any_replica(bench: Bench) {
    let ear = watch(&bench, &["bob", "eve"]).await;
    let (a, b) = (Run("a-1", LONG, Duration::ZERO), Run("b-1", LONG, Duration::ZERO));
    assert_eq!(presence(&bench, "eve").await, (0, false));
    let first = a.report(&bench, &[("eve", 1), ("bob", 1)]).await;
    assert_eq!((first.held, first.more, first.due), (false, false, None));
    assert!(a.report(&bench, &[("eve", 3)]).await.held);
    b.report(&bench, &[("eve", 2)]).await;
    assert_eq!(presence(&bench, "eve").await, (5, true));
    // Said twice, as when an answer was lost.
    a.report(&bench, &[("eve", 0)]).await;
    a.report(&bench, &[("eve", 0)]).await;
    assert_eq!(presence(&bench, "eve").await, (2, true));
    assert_eq!(announced(&bench, &ear, "eve").await, 1);
    b.report(&bench, &[("eve", 0)]).await;
    assert_eq!(presence(&bench, "eve").await, (0, false));
    b.report(&bench, &[("eve", 1)]).await;
    assert_eq!(announced(&bench, &ear, "eve").await, 3);
    assert_eq!((presence(&bench, "bob").await, announced(&bench, &ear, "bob").await), ((1, true), 1));
}

async fn a_short_absence_is_not_reported(bench: Bench) {
    let ear = watch(&bench, &["eve"]).await;
    let (a, b) = (Run("a-1", LONG, LONG), Run("b-1", LONG, LONG));
    a.report(&bench, &[("eve", 1)]).await;
    let since = bench.broker.presence(&["eve".to_owned()]).await.unwrap()[0].since_ms;
    let due = a.report(&bench, &[("eve", 0)]).await.due.unwrap();
    assert!(due <= LONG && due > LONG / 2, "{due:?}");
    assert_eq!(presence(&bench, "eve").await, (0, true), "online until the leave is reported");
    b.report(&bench, &[("eve", 1)]).await;
    assert_eq!(bench.broker.presence(&["eve".to_owned()]).await.unwrap()[0].since_ms, since);
    assert_eq!(announced(&bench, &ear, "eve").await, 1);
    // Reported once it is due, by the next run that reports.
    let (a, b) = (Run("a-1", LONG, SHORT), Run("b-1", LONG, SHORT));
    assert!(b.report(&bench, &[("eve", 0)]).await.due.unwrap() <= SHORT);
    eventually("the leave", DEADLINE, async || {
        a.report(&bench, &[]).await;
        !presence(&bench, "eve").await.1
    })
    .await;
    assert_eq!(announced(&bench, &ear, "eve").await, 2);
}

async fn only_the_users_of_a_silent_run_go_offline(bench: Bench) {
    let ear = watch(&bench, &["bob", "both", "eve"]).await;
    let (a, b) = (Run("a-1", SHORT, Duration::ZERO), Run("b-1", LONG, Duration::ZERO));
    b.report(&bench, &[("bob", 1), ("both", 1)]).await;
    a.report(&bench, &[("eve", 1), ("both", 4)]).await;
    eventually("the lease is over", DEADLINE, async || presence(&bench, "eve").await.0 == 0).await;
    assert_eq!(presence(&bench, "both").await, (1, true), "a run whose lease is over does not count");
    b.report(&bench, &[]).await;
    assert_eq!((presence(&bench, "eve").await, announced(&bench, &ear, "eve").await), ((0, false), 2));
    for user in ["bob", "both"] {
        assert_eq!((presence(&bench, user).await, announced(&bench, &ear, user).await), ((1, true), 1));
    }
    // It was only cut off: it is notified, and reports all users again.
    assert!(!a.report(&bench, &[("eve", 1), ("both", 4)]).await.held);
    assert_eq!(presence(&bench, "both").await, (5, true));
    assert_eq!(announced(&bench, &ear, "eve").await, 3);
}

async fn a_run_is_notified_when_the_lease_of_another_ends(bench: Bench) {
    let ear = watch(&bench, &["eve"]).await;
    let lease = Duration::from_secs(2);
    let (a, b) = (Run("a-1", lease, Duration::ZERO), Run("b-1", LONG, Duration::ZERO));
    assert_eq!(b.report(&bench, &[("bob", 1)]).await.due, None, "its own lease is its own business");
    a.report(&bench, &[("eve", 1)]).await;
    // A run that reports only when due removes the users in time.
    let due = b.report(&bench, &[]).await.due.unwrap();
    assert!(!due.is_zero() && due <= lease, "{due:?}");
    tokio::time::sleep(due + Duration::from_millis(10)).await;
    assert_eq!(b.report(&bench, &[]).await.due, None);
    assert_eq!((presence(&bench, "eve").await, announced(&bench, &ear, "eve").await), ((0, false), 2));
}

async fn after_an_outage_runs_have_time_to_come_back(bench: Bench) {
    let ear = watch(&bench, &["bob", "eve"]).await;
    let (a, b) = (Run("a-1", SHORT, LONG), Run("b-1", SHORT, LONG));
    a.report(&bench, &[("eve", 1)]).await;
    b.report(&bench, &[("bob", 1)]).await;
    for user in ["eve", "bob"] {
        eventually("the lease is over", DEADLINE, async || presence(&bench, user).await.0 == 0).await;
    }
    let (a, b) = (Run("a-1", LONG, LONG), Run("b-1", LONG, LONG));
    let back = a.report(&bench, &[("eve", 1)]).await;
    assert!(!back.held && back.due.unwrap() > SHORT, "nobody is on the way out");
    a.report(&bench, &[]).await;
    assert!(!b.report(&bench, &[("bob", 1)]).await.held);
    for user in ["eve", "bob"] {
        assert_eq!((presence(&bench, user).await, announced(&bench, &ear, user).await), ((1, true), 1));
    }
}

async fn a_run_that_ends_leaves_nothing_behind(bench: Bench) {
    let ear = watch(&bench, &["bob", "eve"]).await;
    Run("a-1", LONG, Duration::ZERO).report(&bench, &[("eve", 1), ("bob", 1)]).await;
    // One that it forgot goes at once.
    let end = Run("a-1", Duration::ZERO, Duration::ZERO).report(&bench, &[("eve", 0)]).await;
    assert!(!end.more);
    for user in ["eve", "bob"] {
        assert_eq!((presence(&bench, user).await, announced(&bench, &ear, user).await), ((0, false), 2));
    }
    assert!(!Run("a-1", LONG, Duration::ZERO).report(&bench, &[]).await.held);
}

async fn many_users_go_in_batches(bench: Bench) {
    let count = 2 * PRESENCE_BATCH_MAX_USERS + 10;
    let users: Vec<_> = (0..count).map(|n| format!("user {n}")).collect();
    for batch in users.chunks(PRESENCE_BATCH_MAX_USERS) {
        let changes: Vec<_> = batch.iter().map(|user| (user.as_str(), 1)).collect();
        Run("a-1", LONG, Duration::ZERO).report(&bench, &changes).await;
    }
    let online = async || {
        let found = bench.broker.presence(&users).await.unwrap();
        found.iter().filter(|one| one.since_ms.is_some()).count()
    };
    assert_eq!(online().await, count);
    let end = Run("a-1", Duration::ZERO, Duration::ZERO).report(&bench, &[]).await;
    assert_eq!((end.more, online().await), (true, count - PRESENCE_BATCH_MAX_USERS));
    let other = Run("b-1", LONG, Duration::ZERO);
    assert!(other.report(&bench, &[]).await.more);
    assert!(!other.report(&bench, &[]).await.more);
    assert_eq!(online().await, 0);

    let changes = vec![("eve".to_owned(), 1); PRESENCE_BATCH_MAX_USERS + 1];
    let beat = Beat { run: "b-1", lease: LONG, grace: LONG, changes: &changes, returns: false };
    assert!(matches!(bench.broker.beat(&beat).await, Err(BrokerError::Refused(_))));
}

async fn a_loss_is_reported(bench: Bench) {
    let ear = watch(&bench, &["eve"]).await;
    let a = Run("a-1", LONG, LONG);
    a.report(&bench, &[("eve", 1)]).await;
    let before = a.report(&bench, &[]).await;
    bench.forget();
    let after = a.report(&bench, &[]).await;
    assert!(before.held && !after.held && before.epoch != after.epoch);
    assert_eq!(presence(&bench, "eve").await, (0, false));
    ear.until("it listens again", |events| {
        events.iter().filter(|event| **event == BrokerEvent::Up).count() == 2
    })
    .await;
    ear.until_subscribed_again(&topic("presence:eve")).await;
    a.report(&bench, &[("eve", 1)]).await;
    assert_eq!((presence(&bench, "eve").await, announced(&bench, &ear, "eve").await), ((1, true), 2));
}

async fn names_are_kept_as_they_are(bench: Bench) {
    for user in ["42", "a/b:\"é\"\\", "since", "\u{1F600} {x}"] {
        let ear = watch(&bench, &[user]).await;
        Run("a-1", LONG, Duration::ZERO).report(&bench, &[(user, 2)]).await;
        assert_eq!((presence(&bench, user).await, announced(&bench, &ear, user).await), ((2, true), 1));
    }
}

async fn a_replica_that_restarts_often_delays_no_leave(bench: Bench) {
    let watching = Run("b-1", LONG, LONG);
    Run("a-1", SHORT, LONG).report(&bench, &[("eve", 1)]).await;
    watching.report(&bench, &[]).await;
    eventually("the lease is over", DEADLINE, async || presence(&bench, "eve").await.0 == 0).await;
    for run in ["c-1", "c-2", "c-3"] {
        Run(run, LONG, LONG).report(&bench, &[]).await;
        bench.pass_time(u64::try_from(LONG.as_millis()).unwrap() / 4);
    }
    // Hers began when her run fell silent.
    watching.report(&bench, &[]).await;
    assert_eq!(presence(&bench, "eve").await, (0, false));
}

#[tokio::test]
async fn a_full_server_keeps_users_online() {
    let bench = Bench::memory();
    let run = Run("a-1", LONG, LONG);
    run.report(&bench, &[("eve", 1)]).await;
    bench.fill(true);
    for _ in 0..4 {
        bench.pass_time(u64::try_from(LONG.as_millis()).unwrap() / 2);
        assert!(run.report(&bench, &[]).await.held);
        assert_eq!(presence(&bench, "eve").await, (1, true));
    }
    bench.fill(false);
}

async fn a_connect_and_disconnect_leaves_nothing_in_redis(bench: Bench) {
    let run = Run("a-1", LONG, Duration::ZERO);
    run.report(&bench, &[]).await;
    let before = bench.keys().await;
    run.report(&bench, &[("eve", 1)]).await;
    run.report(&bench, &[("eve", 0)]).await;
    assert_eq!(bench.keys().await, before);
}

async fn random_comings_and_goings_add_up(bench: Bench) {
    const RUNS: [&str; 2] = ["a-1", "b-1"];
    const USERS: [&str; 4] = ["u", "v", "w", "x"];
    let ear = watch(&bench, &USERS).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut model = BTreeMap::new();
    for step in 0..200 {
        let (run, user, count) =
            (random.usize(..RUNS.len()), random.usize(..USERS.len()), random.usize(..4).saturating_sub(2));
        Run(RUNS[run], LONG, Duration::ZERO).report(&bench, &[(USERS[user], count)]).await;
        model.insert((user, run), count);
        let expected: usize = model.iter().filter(|((of, _), _)| *of == user).map(|(_, count)| count).sum();
        assert_eq!(presence(&bench, USERS[user]).await, (expected, expected > 0), "step {step}");
    }
    for user in USERS {
        assert!(announced(&bench, &ear, user).await > 2);
    }
}
