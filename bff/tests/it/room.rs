//! What is stored in Redis has bounds that all replicas share, and two deployments on one Redis share nothing.

use carillon_harness::{Reader, RedisServer, eventually};
use reqwest::{Client, Response, StatusCode};
use serde_json::json;

use crate::people::{KEY, PEOPLE, SECRET, people_with, token_with};
use crate::world::{Bff, DEADLINE, World};

async fn post(bff: &Bff, token: &str, body: &serde_json::Value) -> Response {
    Client::new().post(bff.http("/api/notifications")).bearer_auth(token).json(body).send().await.unwrap()
}

fn sender(user: &str) -> String {
    token_with(SECRET, json!({ "user_id": user, "send": ["user:*"] }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stored_bytes_of_a_user_in_a_day_are_bounded_on_all_replicas() {
    let world = World::new();
    let bffs = people_with(&world, 2, &["--send-bytes-per-day", "16KiB"]).await;
    let message =
        |n: usize| json!({ "id": format!("m-{n}"), "body": "x".repeat(1_500), "to": { "user": "ben" } });
    let mut accepted = 0;
    let refusal = loop {
        let answer = post(&bffs[accepted % 2], &sender("eve"), &message(accepted)).await;
        if answer.status() != StatusCode::ACCEPTED {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 50, "nothing is refused");
    };
    assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refusal.headers().contains_key("retry-after"));
    assert!((5..12).contains(&accepted), "{accepted} messages of 1.5 KiB in 16 KiB");
    let other = post(&bffs[accepted % 2], &sender("eve"), &message(accepted)).await;
    assert_eq!(other.status(), StatusCode::TOO_MANY_REQUESTS, "on the other replica too");
    assert_eq!(post(&bffs[0], &sender("ann"), &message(0)).await.status(), StatusCode::ACCEPTED);
    assert_eq!(post(&bffs[0], KEY, &message(1)).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_almost_full_redis_refuses_users_serves_keys_and_recovers() {
    let world = World::over(RedisServer::start_with(&["--maxmemory-policy", "noeviction"]));
    let bff = &people_with(&world, 1, &[]).await[0];
    let reader = Reader::connect(&bff.ws()).await;
    // So much that what this test does itself counts for nothing.
    world.redis.run(&["EVAL", "redis.call('SET', 'ballast', string.rep('x', 40000000))", "0"]);
    let info = world.redis.cli(&["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let used: u64 = used.trim().parse().unwrap();
    // Between 80 %, from where on users are refused, and 85 %, from where on histories are trimmed.
    world.redis.run(&["CONFIG", "SET", "maxmemory", &(used * 100 / 82).to_string()]);
    let to_ben = json!({ "body": "b", "to": { "user": "ben" } });
    // Each of them asks once: a user who asks again and again is refused for that.
    let mut users = (0..).map(|n| sender(&format!("user-{n}")));
    let mut is_answered = async |status| post(bff, &users.next().unwrap(), &to_ben).await.status() == status;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    eventually("a user is refused", DEADLINE, async || is_answered(unavailable).await).await;
    let answer = post(bff, &sender("ann"), &to_ben).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(post(bff, KEY, &json!({ "id": "by key", "body": "b" })).await.status(), StatusCode::ACCEPTED);
    reader.until("what a key published", |record| record.ids() == ["by key"]).await;

    // Full: everything that writes is refused with a time to come back, and nobody reads of a fault of this service.
    world.redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let answer = post(bff, KEY, &json!({ "id": "full", "body": "b" })).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    bff.until_not_ready().await;
    world.redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    bff.until_ready().await;
    eventually("a user is let in again", DEADLINE, async || is_answered(StatusCode::ACCEPTED).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_on_one_redis_share_nothing() {
    let world = World::alone();
    let url = world.redis.url();
    let options = |more: &[&'static str]| [&PEOPLE[..], more].concat();
    let spawn = |name: &str, url: &str, more: &[&'static str]| Bff::spawn(name, url, &options(more));
    // Two by their names, and a third by its database.
    let other_database = format!("{url}/1");
    let bffs = [
        spawn("plain", &url, &[]),
        spawn("named", &url, &["--namespace", "blue"]),
        spawn("numbered", &other_database, &[]),
    ];
    let mut readers = vec![];
    for bff in &bffs {
        bff.until_ready().await;
        let url = format!("{}?token={}", bff.ws(), sender("ann"));
        readers.push(Reader::connect(&url).await);
    }
    for (bff, reader) in bffs.iter().zip(&readers) {
        let id = format!("of {}", bff.name);
        let own = json!({ "id": id, "body": "b", "to": { "user": "ann" } });
        assert_eq!(post(bff, KEY, &own).await.status(), StatusCode::ACCEPTED);
        assert_eq!(
            post(bff, KEY, &json!({ "id": "for all", "body": "b" })).await.status(),
            StatusCode::ACCEPTED
        );
        reader.wait_for(2).await;
    }
    let revoke = json!({ "user": "ann" });
    let revoked = Client::new().post(bffs[1].http("/api/revocations")).bearer_auth(KEY).json(&revoke);
    assert!(revoked.send().await.unwrap().status().is_success());
    readers[1].until("the end of what was revoked", |record| !record.closes.is_empty()).await;
    // Something of each deployment comes after all of that, so whatever crosses has crossed.
    for (bff, reader) in bffs.iter().zip(&readers) {
        assert_eq!(
            post(bff, KEY, &json!({ "id": "last", "body": "b" })).await.status(),
            StatusCode::ACCEPTED
        );
        if bff.name != "named" {
            reader.wait_for(3).await;
            let record = reader.record();
            assert_eq!(record.ids(), [&format!("of {}", bff.name), "for all", "last"]);
            assert_eq!((record.closes, record.gaps), (vec![], vec![]), "{}", bff.name);
        }
    }
    let names = world.redis.cli(&["KEYS", "*"]);
    assert!(
        names.lines().all(|name| name.contains("blue:") || name.contains("Notification-List")),
        "{names}"
    );
}
