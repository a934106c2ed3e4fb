use std::io::Read;

use carillon_harness::{RedisServer, eventually, free_port};
use flate2::read::GzDecoder;
use pprof::protos::{Message, Profile};

use crate::world::{Bff, DEADLINE};

/// What `pprof` would open: it must decode, and a name must stand for each type of value.
async fn profile(url: &str) -> Option<Profile> {
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.status(), 200, "{url}");
    let mut bytes = Vec::new();
    GzDecoder::new(&*answer.bytes().await.unwrap()).read_to_end(&mut bytes).unwrap();
    let profile = Profile::decode(&*bytes).unwrap();
    assert!(!profile.sample_type.is_empty(), "{url}");
    (!profile.sample.is_empty()).then_some(profile)
}

fn types(profile: &Profile) -> Vec<&str> {
    let name = |index: i64| profile.string_table[usize::try_from(index).unwrap()].as_str();
    profile.sample_type.iter().map(|one| name(one.ty)).collect()
}

#[tokio::test]
async fn both_profiles_have_samples_that_pprof_opens() {
    let redis = RedisServer::shared();
    let port = free_port();
    let bff = Bff::spawn("bff-1", &redis.url(), &["--pprof-port", &format!(":{port}")]);
    bff.until_ready().await;
    let url = |path: &str| format!("http://127.0.0.1:{port}/debug/pprof/{path}");

    // Pages of history make it work and hold memory: one that does nothing has nothing to show.
    let working = async {
        loop {
            let _ = reqwest::get(bff.http("/api/notifications?limit=1000")).await.unwrap().text().await;
        }
    };
    let looking = async {
        let cpu = eventually_some(async || profile(&url("profile?seconds=1")).await).await;
        assert_eq!(types(&cpu), ["samples", "cpu"]);
        assert!(!cpu.function.is_empty(), "it names functions by itself");
        let heap = eventually_some(async || {
            let body = format!(r#"{{"body":"b","data":"{}"}}"#, "x".repeat(60_000));
            let post = reqwest::Client::new().post(bff.http("/api/notifications")).body(body);
            assert_eq!(post.header("content-type", "application/json").send().await.unwrap().status(), 202);
            profile(&url("heap")).await
        });
        let heap = heap.await;
        assert_eq!(types(&heap), ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]);
        assert!(!heap.mapping.is_empty(), "it says where the program's functions are found");
    };
    tokio::select! {
        () = working => unreachable!("it works until it is dropped"),
        () = looking => {}
    }
    one_at_a_time(&url).await;
    for seconds in ["0", "121", "x"] {
        assert_eq!(reqwest::get(url(&format!("profile?seconds={seconds}"))).await.unwrap().status(), 400);
    }
    assert_eq!(reqwest::get(url("goroutine")).await.unwrap().status(), 404);
    // Nothing of it is where readers and probes are.
    assert_eq!(reqwest::get(bff.http("/debug/pprof/heap")).await.unwrap().status(), 404);
    assert_eq!(bff.admin("/debug/pprof/heap").await.0, 404);
}

/// A second request is refused while the first one is answered, and taken after it.
async fn one_at_a_time(url: &impl Fn(&str) -> String) {
    let (first, second) =
        tokio::join!(reqwest::get(url("profile?seconds=1")), reqwest::get(url("profile?seconds=1")));
    let mut statuses = [first.unwrap().status().as_u16(), second.unwrap().status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!(reqwest::get(url("profile?seconds=1")).await.unwrap().status(), 200);
}

async fn eventually_some<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let found = std::cell::RefCell::new(None);
    eventually("a profile with samples", DEADLINE, async || {
        let one = ask().await;
        let is_some = one.is_some();
        *found.borrow_mut() = one;
        is_some
    })
    .await;
    found.into_inner().unwrap()
}

#[tokio::test]
async fn without_a_port_the_heap_is_not_sampled() {
    let redis = RedisServer::shared();
    let (port, admin) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let env = [("REDIS_URL", redis.url()), ("ADMIN_LISTEN", admin), ("PORT", format!(":{port}"))];
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut bff = carillon_harness::Process::spawn(env!("CARGO_BIN_EXE_bff"), &[], &env);
    let line = bff.wait_line("starting").await;
    assert!(line.contains(&format!("listen=127.0.0.1:{port}")), "{line}");
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", bff.pid())).unwrap();
    assert!(!environment.contains("PPROF_ALLOC_SAMPLE_RATE"), "it runs as it was started");
}
