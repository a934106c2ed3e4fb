//! States and raw payloads of other programs for users.

/// Makes a test of each function, once for each engine.
macro_rules! on_both_engines {
    ($($name:ident),* $(,)?) => {
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::notify::Place::on_redis().await).await;
            })*
        }
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::notify::Place::in_memory().await).await;
            })*
        }
    };
}

mod http;
mod socket;
mod twirp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use carillon_auth::identity::IdentityOptions;
use carillon_bff::now_ms;
use carillon_broker::limits::RAW_MAX_BYTES;
use carillon_broker::{Broker, State};
use carillon_harness::{DialOptions, Proxy, Socket};
use serde_json::{Value, json};

use crate::people::{PEOPLE, SECRET, people, token};
use crate::world::{Bff, World, replica};

/// Two replicas over one broker, with what keeps them going.
struct Place {
    replicas: [SocketAddr; 2],
    broker: Broker,
    _redis: Option<(World, Vec<Bff>)>,
}

impl Place {
    async fn on_redis() -> Self {
        let world = World::new();
        let bffs = people(&world, 2).await;
        let replicas = [&bffs[0], &bffs[1]].map(|bff| SocketAddr::from(([127, 0, 0, 1], bff.port())));
        Self { replicas, broker: world.broker.clone(), _redis: Some((world, bffs)) }
    }

    async fn in_memory() -> Self {
        let (broker, _) = Broker::memory(Arc::new(now_ms));
        let options = IdentityOptions { jwt_secret: vec![SECRET.into()], ..IdentityOptions::default() };
        let replicas = [replica(&broker, &options).await, replica(&broker, &options).await];
        Self { replicas, broker, _redis: None }
    }

    /// A socket of a user on one of the replicas, after its welcome.
    async fn socket(&self, at: usize, user: &str) -> Socket {
        let mut socket = open(&format!("ws://{}/ws?token={}", self.replicas[at], token(user))).await;
        assert!(socket.text().await.starts_with(r#"{"type":"welcome""#));
        socket
    }
}

on_both_engines!(
    a_user_s_state_comes_after_the_welcome_and_at_each_change,
    no_change_of_a_state_is_lost_while_sockets_connect,
);

async fn open(url: &str) -> Socket {
    Socket::open(url, &DialOptions::default()).await.unwrap()
}

fn state(fields: &[(&str, &str)]) -> State {
    fields.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect()
}

async fn json_text(socket: &mut Socket) -> Value {
    serde_json::from_str(&socket.text().await).unwrap()
}

fn state_frame(state: &Value) -> Value {
    json!({ "type": "state", "state": state })
}

async fn a_user_s_state_comes_after_the_welcome_and_at_each_change(place: Place) {
    place.broker.set_state("ann", &state(&[("unread", "1"), ("name", "Ada")])).await.unwrap();
    let first = state_frame(&json!({"unread": "1", "name": "Ada"}));
    let mut ben = place.socket(0, "ben").await;
    assert_eq!(json_text(&mut ben).await, state_frame(&json!({})));
    let mut tabs = vec![];
    for at in [0, 0, 1] {
        let mut tab = place.socket(at, "ann").await;
        assert_eq!(json_text(&mut tab).await, first);
        tabs.push(tab);
    }
    place.broker.set_state("ann", &state(&[("unread", "2")])).await.unwrap();
    for tab in &mut tabs {
        assert_eq!(json_text(tab).await, state_frame(&json!({"unread": "2"})), "once, on every tab");
    }
    // The last payload is next: no frame arrived that was for another user.
    for user in ["ann", "ben"] {
        place.broker.publish_raw(user, user.as_bytes()).await.unwrap();
    }
    for tab in &mut tabs {
        assert_eq!(tab.text().await, r#"{"type":"raw","data":"ann"}"#);
    }
    assert_eq!(ben.text().await, r#"{"type":"raw","data":"ben"}"#);
}

/// For many users, each of whom connects twice while their state is written: wherever the last write falls,
/// before, within or after the joining, it is the last that is seen, and what is seen never goes back.
async fn no_change_of_a_state_is_lost_while_sockets_connect(place: Place) {
    let mut random = fastrand::Rng::with_seed(5);
    for round in 0..120 {
        let user = format!("user-{round}");
        let last = random.u64(1..12);
        let pauses: Vec<_> = (0..last).map(|_| random.u64(0..1_500)).collect();
        let writing = async {
            for (n, pause) in (1..).zip(pauses) {
                place.broker.set_state(&user, &state(&[("n", &format!("{n}"))])).await.unwrap();
                tokio::time::sleep(Duration::from_micros(pause)).await;
            }
        };
        let (mut one, mut two, ()) =
            tokio::join!(place.socket(0, &user), place.socket(round % 2, &user), writing);
        for socket in [&mut one, &mut two] {
            let mut seen = 0;
            while seen < last {
                let frame = json_text(socket).await;
                assert_eq!(frame["type"], "state", "{frame}");
                let now = frame["state"]["n"].as_str().map_or(0, |n| n.parse().unwrap());
                assert!(now >= seen, "{now} after {seen}");
                seen = now;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_program_with_a_redis_client_sets_states_and_publishes_payloads() {
    let world = World::alone();
    let bff = &people(&world, 1).await[0];
    let connect = async |user: &str| {
        let mut socket = open(&format!("{}?token={}", bff.ws(), token(user))).await;
        assert!(socket.text().await.contains("welcome"));
        assert_eq!(json_text(&mut socket).await, state_frame(&json!({})));
        socket
    };
    let (mut ann, mut ben, mut nobody) = (connect("ann").await, connect("ben").await, open(&bff.ws()).await);
    assert!(nobody.text().await.contains("welcome"));
    world.redis.run(&["HSET", "notify:ann:state", "unread", "3"]);
    world.redis.run(&["PUBLISH", "notify:ann:state", "x"]);
    assert_eq!(ann.text().await, r#"{"type":"state","state":{"unread":"3"}}"#);
    for (said, framed) in [
        ("hello \"you\"", r#""hello \"you\"""#),
        (r#"{"kind": "mail", "n": 1.10}"#, r#"{"kind": "mail", "n": 1.10}"#),
    ] {
        world.redis.run(&["PUBLISH", "notify:ann", said]);
        assert_eq!(ann.text().await, format!(r#"{{"type":"raw","data":{framed}}}"#));
    }
    // The largest, of which each byte is written as six; and one that is larger, which is counted.
    world.broker.publish_raw("ann", &[0; RAW_MAX_BYTES]).await.unwrap();
    assert_eq!(json_text(&mut ann).await["data"].as_str().unwrap().len(), RAW_MAX_BYTES);
    world.redis.run(&["PUBLISH", "notify:ann", &"x".repeat(RAW_MAX_BYTES + 1)]);
    // An invalid state is not sent, and leaves the socket as it is.
    world.redis.run(&["SET", "notify:ann:state", "no hash"]);
    world.redis.run(&["PUBLISH", "notify:ann:state", "x"]);
    carillon_harness::eventually("a state that cannot be read", crate::world::DEADLINE, async || {
        bff.metric("carillon_values_failed_total", "").await > 0.5
    })
    .await;
    assert!((bff.metric("carillon_raw_dropped_total", "").await - 1.0).abs() < f64::EPSILON);
    world.redis.run(&["DEL", "notify:ann:state"]);
    world.redis.run(&["PUBLISH", "notify:ann:state", "x"]);
    assert_eq!(ann.text().await, r#"{"type":"state","state":{}}"#);
    // No other user received any of it: the next frame is their first.
    world.redis.run(&["PUBLISH", "notify:ben", "1"]);
    assert_eq!(ben.text().await, r#"{"type":"raw","data":1}"#);
    world.push([crate::world::entry("all")]).await;
    assert!(nobody.text().await.contains("all"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_arrives_whole_and_in_order() {
    let world = World::alone();
    let bff = &people(&world, 1).await[0];
    let mut ann = open(&format!("{}?token={}", bff.ws(), token("ann"))).await;
    assert!(ann.text().await.contains("welcome"));
    assert_eq!(json_text(&mut ann).await, state_frame(&json!({})));
    let burst = "for n = 0, 399 do redis.call('PUBLISH', 'notify:ann', n) end";
    world.redis.run(&["EVAL", burst, "0"]);
    for n in 0..400 {
        assert_eq!(ann.text().await, format!(r#"{{"type":"raw","data":{n}}}"#));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_cut_off_sends_the_current_state_later() {
    let world = World::alone();
    let network = Proxy::start(world.redis.addr()).await;
    let bff = Bff::spawn("bff-far", &format!("redis://{}", network.addr()), &PEOPLE);
    bff.until_ready().await;
    let mut ann = open(&format!("{}?token={}", bff.ws(), token("ann"))).await;
    assert!(ann.text().await.contains("welcome"));
    assert_eq!(json_text(&mut ann).await, state_frame(&json!({})));
    network.refuse();
    network.cut();
    bff.until_not_ready().await;
    world.broker.set_state("ann", &state(&[("while", "away")])).await.unwrap();
    network.pass();
    assert_eq!(json_text(&mut ann).await, state_frame(&json!({"while": "away"})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_own_mode_users_get_raw_payloads_on_every_replica() {
    let world = World::new();
    let args = [&PEOPLE[..], &["--fanout", "own"]].concat();
    for n in 1..=2 {
        let bff = Bff::spawn(&format!("bff-{n}"), &world.redis.url(), &args);
        bff.until_ready().await;
        let mut ann = open(&format!("{}?token={}", bff.ws(), token("ann"))).await;
        assert!(ann.text().await.contains("welcome"));
        assert_eq!(json_text(&mut ann).await["type"], "state");
        world.broker.publish_raw("ann", b"hi").await.unwrap();
        assert_eq!(ann.text().await, r#"{"type":"raw","data":"hi"}"#);
        let changed = format!("{n}");
        world.broker.set_state("ann", &state(&[("n", &changed)])).await.unwrap();
        assert_eq!(json_text(&mut ann).await, state_frame(&json!({"n": changed})));
    }
}
