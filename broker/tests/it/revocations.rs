use carillon_broker::{Event, Revocation};

use crate::bench::Bench;
use crate::on_both_engines;

on_both_engines!(a_revocation_is_told_and_kept_and_never_goes_back, replicas_share_one_session_key);

async fn a_revocation_is_told_and_kept_and_never_goes_back(bench: Bench) {
    let ear = bench.listen();
    ear.until("a connection", |events| events.contains(&Event::Up)).await;
    let user = |until_s| Revocation::User { user: "an:n".into(), until_s };
    let token = Revocation::Token { token_id: "t 1".into(), until_s: 5_000_000 };
    for one in [user(5_000_000), token.clone(), user(4_999_999)] {
        bench.broker.revoke(&one).await.unwrap();
    }
    for one in [user(5_000_000), token.clone()] {
        ear.until("a revocation", |events| events.contains(&Event::Revoked(one.clone()))).await;
    }
    let kept = bench.broker.revocations().await.unwrap();
    assert!(kept.len() == 2 && kept.contains(&user(5_000_000)) && kept.contains(&token), "{kept:?}");
    // What no token can outlive is dropped.
    bench.broker.revoke(&user(9_000_000)).await.unwrap();
    assert_eq!(bench.broker.revocations().await.unwrap(), [user(9_000_000)]);
}

async fn replicas_share_one_session_key(bench: Bench) {
    assert_eq!(bench.broker.session_key([1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(bench.broker.session_key([2; 32]).await.unwrap(), [1; 32]);
}
