//! The start of Redis as the StatefulSet has it, on a real server.

use std::process::Command;
use std::time::Duration;

use carillon_harness::{Process, eventually, free_port, need};

use crate::cluster::{containers, list, text};
use crate::render;

/// Any password that the deploy script could have made.
const PASSWORD: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

#[tokio::test]
async fn redis_starts_with_its_password_and_shows_it_to_nobody() {
    need("redis-server", "redis-server");
    let cluster = render::overlay("ingress-nginx");
    let container = containers(cluster.find("StatefulSet", "redis").unwrap()).next().unwrap();
    let data = tempfile::tempdir().unwrap();
    let (config, port) = (data.path().join("redis.conf"), free_port());
    let lines = text(&cluster.config("redis")["redis.conf"]).replace("/data", &data.path().to_string_lossy());
    std::fs::write(&config, format!("{lines}\nbind 127.0.0.1\nport {port}\n")).unwrap();
    let command: Vec<_> = list(&container["command"])
        .map(|word| text(word).replace("/etc/redis/redis.conf", &config.to_string_lossy()))
        .collect();
    let args: Vec<_> = command[1..].iter().map(String::as_str).collect();
    let process = Process::spawn(&command[0], &args, &[("REDISCLI_AUTH", PASSWORD)]);

    let cli = |password: Option<&str>, args: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-e", "-p", &port.to_string()]).args(args).env_remove("REDISCLI_AUTH");
        let output = command.envs(password.map(|password| ("REDISCLI_AUTH", password))).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    };
    let up = || async { cli(Some(PASSWORD), &["ping"]) == (true, "PONG".to_owned()) };
    eventually("Redis answers the probe", Duration::from_secs(20), up).await;
    let (passed, said) = cli(None, &["ping"]);
    assert!(!passed && said.contains("NOAUTH"), "{said}");
    for (name, value) in [
        ("appendonly", "yes"),
        ("maxmemory", "536870912"),
        ("maxmemory-policy", "noeviction"),
        ("stream-node-max-bytes", "512"),
        ("save", ""),
    ] {
        let (_, said) = cli(Some(PASSWORD), &["config", "get", name]);
        assert_eq!(said.lines().nth(1).unwrap_or_default(), value, "{name}");
    }

    let words = std::fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&words).contains(PASSWORD), "the password is in the list of processes");
    assert!(!process.stdout().join("\n").contains(PASSWORD), "the password is in the log");
}
