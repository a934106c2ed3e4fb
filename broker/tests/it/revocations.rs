use std::time::{SystemTime, UNIX_EPOCH};

use carillon_broker::limits::{REVOCATION_SKEW_MAX_S, REVOCATIONS_KEEP_S};
use carillon_broker::{BrokerEvent, Revocation};

use crate::bench::Bench;
use crate::on_both_engines;

on_both_engines!(
    a_revocation_is_published_and_stored_and_never_decreases,
    a_revocation_counts_until_now_by_the_clock_that_all_share,
    a_revocation_is_dropped_when_its_time_is_over_and_not_by_another,
    a_wrong_clock_adds_five_minutes_at_most,
    lost_revocations_are_restored,
    replicas_share_one_session_key,
);

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn user(name: &str, until_s: u64) -> Revocation {
    Revocation::User { user: name.to_owned(), until_s }
}

async fn a_revocation_is_published_and_stored_and_never_decreases(bench: Bench) {
    let ear = bench.listen();
    ear.until("a connection", |events| events.contains(&BrokerEvent::Up)).await;
    // Ahead, so that it is later than any clock here when the test ends.
    let until_s = now_s() + REVOCATION_SKEW_MAX_S - 60;
    let token = Revocation::Token { token_id: "t 1".into(), until_s };
    for one in [user("an:n", until_s), token.clone(), user("an:n", until_s - 1)] {
        bench.broker.revoke(&one).await.unwrap();
    }
    for one in [user("an:n", until_s), token.clone()] {
        ear.until("a revocation", |events| events.contains(&BrokerEvent::Revoked(one.clone()))).await;
    }
    let kept = bench.broker.revocations().await.unwrap();
    assert!(kept.len() == 2 && kept.contains(&user("an:n", until_s)) && kept.contains(&token), "{kept:?}");
}

async fn a_revocation_counts_until_now_by_the_clock_that_all_share(bench: Bench) {
    let ear = bench.listen();
    ear.until("a connection", |events| events.contains(&BrokerEvent::Up)).await;
    let before_s = now_s();
    bench.broker.revoke(&user("ann", before_s - REVOCATION_SKEW_MAX_S)).await.unwrap();
    let counts = |one: &Revocation| matches!(one, Revocation::User { until_s, .. } if *until_s >= before_s);
    let received = |event: &BrokerEvent| matches!(event, BrokerEvent::Revoked(one) if counts(one));
    ear.until("a revocation until now", |events| events.iter().any(received)).await;
    let kept = bench.broker.revocations().await.unwrap();
    assert!(kept.len() == 1 && counts(&kept[0]), "{kept:?}");
}

async fn a_revocation_is_dropped_when_its_time_is_over_and_not_by_another(bench: Bench) {
    bench.broker.revoke(&user("old", bench.now_s())).await.unwrap();
    bench.pass_time(120_000);
    bench.broker.revoke(&user("recent", bench.now_s())).await.unwrap();
    bench.pass_time((REVOCATIONS_KEEP_S - 60) * 1_000);
    // The last one lies further ahead than the other has left.
    let now_s = bench.now_s();
    bench.broker.revoke(&user("last", now_s + REVOCATION_SKEW_MAX_S - 60)).await.unwrap();
    let kept = bench.broker.revocations().await.unwrap();
    let is_kept =
        |name: &str| kept.iter().any(|one| matches!(one, Revocation::User { user, .. } if user == name));
    assert!(kept.len() == 2 && is_kept("recent") && is_kept("last"), "{kept:?}");
}

/// A second in which either clock was days ahead refuses no token for days.
async fn a_wrong_clock_adds_five_minutes_at_most(bench: Bench) {
    let now_s = bench.now_s();
    bench.broker.revoke(&user("ann", now_s - 3 * 86_400)).await.unwrap();
    let kept = bench.broker.revocations().await.unwrap();
    assert_eq!(kept, [user("ann", now_s - 3 * 86_400 + REVOCATION_SKEW_MAX_S)], "Redis is three days ahead");
    bench.broker.revoke(&user("ben", now_s + 3 * 86_400)).await.unwrap();
    let kept = bench.broker.revocations().await.unwrap();
    assert!(kept.contains(&user("ben", now_s + 3 * 86_400)), "Redis is three days behind: {kept:?}");
}

async fn lost_revocations_are_restored(bench: Bench) {
    let ear = bench.listen();
    ear.until("a connection", |events| events.contains(&BrokerEvent::Up)).await;
    let now_s = bench.now_s();
    let lost = [user("ann", now_s), Revocation::Token { token_id: "t".into(), until_s: now_s - 5 }];
    bench.broker.revoke(&user("ann", now_s + 7)).await.unwrap();
    bench.broker.restore_revocations(&lost).await.unwrap();
    let kept = bench.broker.revocations().await.unwrap();
    assert!(kept.contains(&user("ann", now_s + 7)) && kept.contains(&lost[1]) && kept.len() == 2, "{kept:?}");
    ear.until("all replicas are notified", |events| events.contains(&BrokerEvent::RevocationsRestored)).await;
}

async fn replicas_share_one_session_key(bench: Bench) {
    assert_eq!(bench.broker.session_key([1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(bench.broker.session_key([2; 32]).await.unwrap(), [1; 32]);
    let replace = async |old, fresh| bench.broker.replace_session_key(old, fresh).await.unwrap();
    assert_eq!(replace([2; 32], [3; 32]).await, [1; 32], "another was not there");
    assert_eq!(replace([1; 32], [0xff; 32]).await, [0xff; 32]);
    assert_eq!(bench.broker.session_key([2; 32]).await.unwrap(), [0xff; 32]);
}
