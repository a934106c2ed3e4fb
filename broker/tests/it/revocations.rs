use std::time::{SystemTime, UNIX_EPOCH};

use carillon_broker::limits::{REVOCATION_AHEAD_MAX_S, REVOCATIONS_KEEP_S};
use carillon_broker::{BrokerError, Event, Revocation};

use crate::bench::Bench;
use crate::on_both_engines;

on_both_engines!(
    a_revocation_is_told_and_kept_and_never_goes_back,
    a_revocation_is_dropped_when_its_time_is_over_and_not_by_another,
    replicas_share_one_session_key,
);

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn user(name: &str, until_s: u64) -> Revocation {
    Revocation::User { user: name.to_owned(), until_s }
}

async fn a_revocation_is_told_and_kept_and_never_goes_back(bench: Bench) {
    let ear = bench.listen();
    ear.until("a connection", |events| events.contains(&Event::Up)).await;
    let now_s = now_s();
    let token = Revocation::Token { token_id: "t 1".into(), until_s: now_s };
    for one in [user("an:n", now_s), token.clone(), user("an:n", now_s - 1)] {
        bench.broker.revoke(&one).await.unwrap();
    }
    for one in [user("an:n", now_s), token.clone()] {
        ear.until("a revocation", |events| events.contains(&Event::Revoked(one.clone()))).await;
    }
    let kept = bench.broker.revocations().await.unwrap();
    assert!(kept.len() == 2 && kept.contains(&user("an:n", now_s)) && kept.contains(&token), "{kept:?}");
}

async fn a_revocation_is_dropped_when_its_time_is_over_and_not_by_another(bench: Bench) {
    let now_s = now_s();
    // The last one lies further ahead than the other has left.
    let recent = user("recent", now_s - REVOCATIONS_KEEP_S + 60);
    let last = user("last", now_s + REVOCATION_AHEAD_MAX_S - 60);
    bench.broker.revoke(&user("old", now_s - REVOCATIONS_KEEP_S - 1)).await.unwrap();
    bench.broker.revoke(&recent).await.unwrap();
    bench.broker.revoke(&last).await.unwrap();
    let kept = bench.broker.revocations().await.unwrap();
    assert!(kept.len() == 2 && kept.contains(&recent) && kept.contains(&last), "{kept:?}");
    // Milliseconds in the place of seconds.
    for until_s in [now_s * 1_000, now_s + REVOCATION_AHEAD_MAX_S + 60] {
        let refused = bench.broker.revoke(&user("ahead", until_s)).await;
        assert!(matches!(refused, Err(BrokerError::Refused(_))), "{refused:?}");
    }
    assert_eq!(bench.broker.revocations().await.unwrap(), kept);
}

async fn replicas_share_one_session_key(bench: Bench) {
    assert_eq!(bench.broker.session_key([1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(bench.broker.session_key([2; 32]).await.unwrap(), [1; 32]);
}
