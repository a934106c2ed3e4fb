use carillon_broker::{BrokerError, BrokerEvent, FanOut};
use carillon_protocol::Audience;

use crate::bench::Bench;
use crate::on_both_engines;

on_both_engines!(everything_fails_readably_while_it_is_away_and_goes_on_when_it_is_back);

async fn everything_fails_readably_while_it_is_away_and_goes_on_when_it_is_back(bench: Bench) {
    let ear = bench.listen();
    ear.subscriptions.add(Audience::Everyone);
    ear.until_subscribed(&Audience::Everyone).await;
    bench.push(&["before"]).await;
    bench.go_away();
    ear.until("the loss", |events| events.contains(&BrokerEvent::Down)).await;
    let away =
        |result: Result<(), BrokerError>| assert!(matches!(result, Err(BrokerError::Away(_))), "{result:?}");
    away(bench.broker.push(&[b"lost".to_vec()]).await.map(|_| ()));
    away(bench.broker.claim("bff", FanOut::All).await.map(|_| ()));
    away(bench.broker.waiting().await.map(|_| ()));
    away(bench.broker.tail().await.map(|_| ()));
    ear.forget();
    bench.come_back();
    ear.until_subscribed(&Audience::Everyone).await;
    bench.claim("bff").await;
    ear.until("what waited", |_| ear.published() == ["before"]).await;
}
