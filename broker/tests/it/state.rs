use std::sync::Mutex;

use carillon_broker::limits::STATE_MAX_BYTES;
use carillon_broker::{Broker, BrokerError, BrokerEvent, FanOut, Names, State, Subscriptions};
use carillon_harness::{RedisServer, eventually};
use carillon_protocol::Audience;

use crate::bench::{Bench, DEADLINE, Ear, topic};
use crate::on_both_engines;

on_both_engines!(
    a_state_is_replaced_and_published_to_the_user_s_listeners,
    a_state_has_a_bound,
    raw_bytes_reach_only_the_listeners_of_the_user,
    an_unsubscribed_user_gets_no_events_and_others_still_do,
    a_cut_listener_receives_its_users_again,
);

fn user(name: &str) -> Audience {
    Audience::User(name.to_owned())
}

fn state(fields: &[(&str, &str)]) -> State {
    fields.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect()
}

/// Returns the events for users, without the others.
fn of_users(ear: &Ear) -> Vec<BrokerEvent> {
    let is_said =
        |event: &BrokerEvent| matches!(event, BrokerEvent::Raw { .. } | BrokerEvent::StateChanged { .. });
    ear.events().into_iter().filter(is_said).collect()
}

fn raw(name: &str, data: &[u8]) -> BrokerEvent {
    BrokerEvent::Raw { user: name.to_owned(), data: data.to_vec() }
}

fn changed(name: &str) -> BrokerEvent {
    BrokerEvent::StateChanged { user: name.to_owned() }
}

async fn listen_for(bench: &Bench, names: &[&str]) -> Ear {
    let ear = bench.listen();
    for name in names {
        ear.subscriptions.add(user(name));
        ear.until_subscribed(&user(name)).await;
    }
    ear
}

async fn a_state_is_replaced_and_published_to_the_user_s_listeners(bench: Bench) {
    let ear = listen_for(&bench, &["1", "2"]).await;
    assert_eq!(bench.broker.state("1").await.unwrap(), State::new());
    let first = state(&[("unread", "3"), ("name", "Ada \u{1F514}\n")]);
    bench.broker.set_state("1", &first).await.unwrap();
    assert_eq!(bench.broker.state("1").await.unwrap(), first);
    assert_eq!(bench.broker.state("2").await.unwrap(), State::new());
    bench.broker.set_state("3", &first).await.unwrap();
    bench.broker.set_state("2", &first).await.unwrap();
    let second = state(&[("unread", "4")]);
    bench.broker.set_state("1", &second).await.unwrap();
    assert_eq!(bench.broker.state("1").await.unwrap(), second);
    bench.broker.set_state("1", &State::new()).await.unwrap();
    assert_eq!(bench.broker.state("1").await.unwrap(), State::new());
    ear.until("four changes", |_| of_users(&ear).len() == 4).await;
    assert_eq!(of_users(&ear), [changed("1"), changed("2"), changed("1"), changed("1")]);
}

async fn a_state_has_a_bound(bench: Bench) {
    let most = state(&[("x", &"y".repeat(STATE_MAX_BYTES - 1))]);
    bench.broker.set_state("1", &most).await.unwrap();
    assert_eq!(bench.broker.state("1").await.unwrap(), most);
    let more = state(&[("xx", &"y".repeat(STATE_MAX_BYTES - 1))]);
    assert!(matches!(bench.broker.set_state("1", &more).await, Err(BrokerError::Refused(_))));
    assert_eq!(bench.broker.state("1").await.unwrap(), most);
}

async fn raw_bytes_reach_only_the_listeners_of_the_user(bench: Bench) {
    let (ear, other) = (listen_for(&bench, &["1"]).await, listen_for(&bench, &["1", "2"]).await);
    let bytes = b"\xff{\r\n\0";
    bench.broker.publish_raw("1", bytes).await.unwrap();
    bench.broker.publish_raw("2", b"").await.unwrap();
    bench.broker.publish_raw("3", b"nobody").await.unwrap();
    bench.broker.publish_raw("1", b"last").await.unwrap();
    ear.until("both", |_| of_users(&ear).len() == 2).await;
    other.until("all three", |_| of_users(&other).len() == 3).await;
    assert_eq!(of_users(&ear), [raw("1", bytes), raw("1", b"last")]);
    assert_eq!(of_users(&other), [raw("1", bytes), raw("2", b""), raw("1", b"last")]);
}

async fn an_unsubscribed_user_gets_no_events_and_others_still_do(bench: Bench) {
    // The channel of the one is that of the other's state.
    let ear = listen_for(&bench, &["1", "1:state", "2"]).await;
    let settle = async |name: &str| {
        ear.subscriptions.add(topic(name));
        ear.until_subscribed(&topic(name)).await;
        ear.forget();
    };
    ear.subscriptions.remove(&user("1"));
    settle("a").await;
    bench.broker.publish_raw("1", b"gone").await.unwrap();
    bench.broker.publish_raw("1:state", b"here").await.unwrap();
    ear.until("one of them", |_| !of_users(&ear).is_empty()).await;
    assert_eq!(of_users(&ear), [raw("1:state", b"here")]);

    ear.subscriptions.add(user("1"));
    settle("b").await;
    ear.subscriptions.remove(&user("1:state"));
    settle("c").await;
    bench.broker.set_state("1", &state(&[("a", "b")])).await.unwrap();
    bench.broker.publish_raw("2", b"last").await.unwrap();
    ear.until("the last", |_| of_users(&ear).contains(&raw("2", b"last"))).await;
    assert_eq!(of_users(&ear), [changed("1"), raw("2", b"last")]);
}

async fn a_cut_listener_receives_its_users_again(bench: Bench) {
    let ear = listen_for(&bench, &["1"]).await;
    ear.forget();
    bench.cut();
    ear.until_subscribed(&user("1")).await;
    while bench.broker.publish_raw("1", b"again").await.is_err() {}
    ear.until("the bytes", |_| of_users(&ear) == [raw("1", b"again")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_use_the_same_names() {
    let server = RedisServer::start();
    let broker = Broker::redis(&server.url(), Names::default()).unwrap();
    server.run(&["HSET", "notify:42:state", "unread", "3"]);
    assert_eq!(broker.state("42").await.unwrap(), state(&[("unread", "3")]));
    let subscriptions = Subscriptions::default();
    subscriptions.add(user("42"));
    let received = Mutex::new(vec![]);
    let until = async |what: &str, is_it: &dyn Fn(&BrokerEvent) -> bool| {
        eventually(what, DEADLINE, async || received.lock().unwrap().iter().any(is_it)).await;
    };
    let test = async {
        until("a subscription", &|event| matches!(event, BrokerEvent::Subscribed { .. })).await;
        assert_eq!(server.cli(&["PUBLISH", "notify:42", "hello"]), "1");
        assert_eq!(server.cli(&["PUBLISH", "notify:42:state", "x"]), "1");
        until("the bytes", &|event| *event == raw("42", b"hello")).await;
        until("the change", &|event| *event == changed("42")).await;
        broker.set_state("42", &state(&[("a", "b")])).await.unwrap();
        assert_eq!(server.cli(&["HGETALL", "notify:42:state"]), "a\nb");
        server.run(&["DEL", "notify:42:state"]);
        server.run(&["SET", "notify:42:state", "no hash"]);
        assert!(matches!(broker.state("42").await, Err(BrokerError::Refused(_))));
    };
    tokio::select! {
        () = broker.listen(&subscriptions, FanOut::All, |event| received.lock().unwrap().push(event)) => panic!("a listener never ends"),
        () = test => {}
    }
}
