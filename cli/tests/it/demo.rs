use std::collections::HashSet;
use std::net::TcpListener;

use carillon_harness::{DialOptions, Reader, RedisServer, Socket, eventually, free_port};
use carillon_protocol::CloseCode;

use crate::running::{DEADLINE, Demo, one_line, spawn};

async fn get(url: &str) -> (u16, String) {
    let response = reqwest::get(url).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn produces_and_all_three_replicas_win_some() {
    let demo = Demo::start().await;
    let reader = Reader::connect(&demo.socket()).await;
    assert!(!reader.wait_for(1).await[0].body.is_empty(), "nobody but the producer has sent anything");
    eventually("each replica has won", DEADLINE, async || {
        assert_eq!(demo.post(r#"{"body":"one more for the race"}"#).await, 202);
        let winners: HashSet<_> = reader.received().into_iter().map(|one| one.claimed_by).collect();
        winners == HashSet::from(["bff-1", "bff-2", "bff-3"].map(ToOwned::to_owned))
    })
    .await;
    assert_eq!(demo.process.stderr(), Vec::<String>::new(), "nothing drowns the banner");
}

#[tokio::test]
async fn each_replica_and_the_probes_have_a_port() {
    let demo = Demo::start().await;
    for name in ["bff-1", "bff-2", "bff-3"] {
        let url = format!("{}/ws", demo.address(name).replace("http:", "ws:"));
        let reader = Reader::connect(&url).await;
        assert_eq!(reader.record().welcomes[0].replica, name);
    }
    let admin = demo.address("admin");
    assert_eq!(get(&format!("{admin}/ready")).await, (200, "ready\n".to_owned()));
    let (_, metrics) = get(&format!("{admin}/metrics")).await;
    assert!(metrics.contains("carillon_readers_joined_total{transport=\"ws\"} 3"), "{metrics}");
}

#[tokio::test]
async fn the_door_and_each_replica_show_the_viewer() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "the viewer").unwrap();
    let demo = Demo::start_with(&["--static-dir", folder.path().to_str().unwrap()], &[]).await;
    for url in [demo.url.clone(), demo.address("bff-3")] {
        assert_eq!(get(&url).await, (200, "the viewer".to_owned()));
        assert_eq!(get(&format!("{url}/nothing")).await.0, 404);
    }
}

#[tokio::test]
async fn without_a_viewer_the_door_says_how_to_build_it() {
    let demo = Demo::start().await;
    let (status, words) = get(&demo.url).await;
    assert_eq!(status, 404);
    assert!(words.contains("run `cargo demo`"), "{words}");

    let line = one_line(spawn(&["--static-dir", "/nowhere"], &[])).await;
    assert_eq!(line, "no viewer in /nowhere: build it with `cargo xtask viewer`");
}

#[tokio::test]
async fn a_taken_port_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = &taken.local_addr().unwrap().port().to_string();
    let replicas = &format!("0,{port}");
    for (ports, words) in [
        ([port.as_str(), "0", "0"], "for browsers: the port is taken (choose another with --port or PORT)"),
        (
            ["0", replicas, "0"],
            "for bff-2: the port is taken (choose another with --replica-ports or REPLICA_PORTS)",
        ),
        (["0", "0", port], "for probes: the port is taken (choose another with --admin-port or ADMIN_PORT)"),
    ] {
        let [door, replicas, admin] = ports;
        let demo = spawn(&["--port", door, "--replica-ports", replicas, "--admin-port", admin], &[]);
        assert_eq!(one_line(demo).await, format!("cannot listen on 127.0.0.1:{port} {words}"));
    }
}

#[tokio::test]
async fn a_wrong_redis_url_is_one_line() {
    let demo = |url: &str| spawn(&["--redis-url", url], &[]);
    let line = one_line(demo("localhost")).await;
    assert!(line.starts_with("--redis-url or REDIS_URL: no usable Redis URL: "), "{line}");
    assert!(line.contains("write redis://"), "{line}");

    let port = free_port();
    let line = one_line(demo(&format!("redis://user:secret@127.0.0.1:{port}"))).await;
    let nobody = format!("cannot use redis://127.0.0.1:{port} (--redis-url or REDIS_URL): Redis is away: ");
    assert!(line.starts_with(&nobody), "{line}");
    assert!(!line.contains("secret"), "{line}");
}

#[tokio::test]
async fn runs_the_same_over_redis() {
    let redis = RedisServer::start();
    let mut demo = Demo::start_with(&[], &[("REDIS_URL", &redis.url())]).await;
    demo.process.wait_line(&format!("engine    Redis at {}", redis.url())).await;
    let reader = Reader::connect(&demo.socket()).await;
    redis.run(&["LPUSH", "Notification-List", "by hand"]);
    redis.run(&["PUBLISH", "Notification-Channel", "x"]);
    reader
        .until("what was pushed by hand", |record| record.received.iter().any(|one| one.body == "by hand"))
        .await;
    demo.process.sigterm();
    assert_eq!(demo.process.wait_exit(DEADLINE).await, 0);
}

#[tokio::test]
async fn a_signal_ends_it_well() {
    for signal in ["TERM", "INT"] {
        let mut demo = Demo::start().await;
        demo.process.signal(signal);
        assert_eq!(demo.process.wait_exit(DEADLINE).await, 0, "{signal}");
        assert_eq!(demo.process.stderr(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn readers_at_the_door_are_closed_before_the_end() {
    let mut demo = Demo::start().await;
    let mut sockets = Vec::new();
    for _ in 0..6 {
        let mut socket = Socket::open(&demo.socket(), &DialOptions::default()).await.unwrap();
        assert!(socket.text().await.contains(r#""type":"welcome""#));
        sockets.push(socket);
    }
    demo.process.sigterm();
    demo.process.wait_line("closing 6 readers").await;
    // The last reader is closed seconds later; until then the door answers, and says why it refuses.
    let (status, words) = get(&format!("{}/sse", demo.url)).await;
    assert_eq!(status, 200, "with any other, a browser's EventSource never comes back");
    assert!(words.starts_with("retry: ") && words.contains("replica shutting down"), "{words}");
    for mut socket in sockets {
        let (texts, code) = socket.until_closed().await;
        assert!(texts.last().unwrap().contains(r#""type":"goodbye""#));
        assert_eq!(code, Some(CloseCode::DRAIN));
    }
    assert_eq!(demo.process.wait_exit(DEADLINE).await, 0);
}
