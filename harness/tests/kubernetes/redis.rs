//! The start of Redis as the StatefulSet has it, on a real server. Compose starts it by the same files.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use carillon_harness::{Process, eventually, free_port, need};
use tempfile::TempDir;

use crate::cluster::{Cluster, containers, list, text};
use crate::render;

/// Any passwords that the deploy script could have made.
const PASSWORDS: [(&str, &str, &str); 3] = [
    ("operator", "REDISCLI_AUTH", "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"),
    ("producer", "PRODUCER_PASSWORD", "1f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f1"),
    ("bff", "BFF_PASSWORD", "2f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f2"),
];
/// What `proto-max-bulk-len` is.
const ARGUMENT_MAX_BYTES: usize = 1024 * 1024;
/// How long an answer of a server on this machine may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Redis as its container starts it, with a folder and a port of its own.
struct Started {
    process: Process,
    port: u16,
    command: Vec<String>,
    _folder: TempDir,
}

impl Started {
    async fn new(cluster: &Cluster) -> Self {
        need("redis-server", "redis-server");
        let container = containers(cluster.find("StatefulSet", "redis").unwrap()).next().unwrap();
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        for (name, content) in cluster.config("redis").as_object().unwrap() {
            let own = text(content).replace("dir /data", &format!("dir {}", folder.path().display()));
            let more =
                if name == "redis.conf" { format!("\nbind 127.0.0.1\nport {port}\n") } else { String::new() };
            std::fs::write(folder.path().join(name), own + &more).unwrap();
        }
        let command: Vec<_> = list(&container["command"])
            .map(|word| text(word).replace("/etc/redis", &folder.path().to_string_lossy()))
            .collect();
        let started = Self { process: spawn(&command), port, command, _folder: folder };
        started.until_ready().await;
        started
    }

    async fn until_ready(&self) {
        let up = async || self.cli(Some("operator"), &["ping"]) == (true, "PONG".to_owned());
        eventually("Redis answers the probe", Duration::from_secs(20), up).await;
    }

    /// Kills it with SIGKILL, and starts it anew with what it had on disk.
    async fn start_again(&mut self) {
        self.process.kill();
        self.process = spawn(&self.command);
        self.until_ready().await;
    }

    /// What redis-cli prints for a command of a user; without a name, of the user `default`.
    fn cli(&self, user: Option<&str>, args: &[&str]) -> (bool, String) {
        let passwords = BTreeMap::from(PASSWORDS.map(|(user, _, password)| (user, password)));
        let mut command = Command::new("redis-cli");
        command.args(["-e", "-p", &self.port.to_string()]).env_remove("REDISCLI_AUTH");
        if let Some(user) = user {
            command.args(["--user", user]).env("REDISCLI_AUTH", passwords[user]);
        }
        let output = command.args(args).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&printed).trim().to_owned())
    }
}

fn spawn(command: &[String]) -> Process {
    let args: Vec<_> = command[1..].iter().map(String::as_str).collect();
    Process::spawn(&command[0], &args, &PASSWORDS.map(|(_, variable, password)| (variable, password)))
}

#[tokio::test]
async fn redis_starts_with_its_passwords_and_shows_them_to_nobody() {
    let redis = Started::new(&render::overlay("traefik")).await;
    for (name, value) in [
        ("appendonly", "yes"),
        ("maxmemory", "536870912"),
        ("maxmemory-policy", "noeviction"),
        ("stream-node-max-bytes", "512"),
        ("proto-max-bulk-len", &ARGUMENT_MAX_BYTES.to_string()),
        ("save", ""),
    ] {
        let (_, printed) = redis.cli(Some("operator"), &["config", "get", name]);
        assert_eq!(printed.lines().nth(1).unwrap_or_default(), value, "{name}");
    }
    let words = std::fs::read(format!("/proc/{}/cmdline", redis.process.pid())).unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&words), redis.process.stdout().join("\n"));
    for (user, _, password) in PASSWORDS {
        assert!(!shown.contains(password), "the password of {user} is in the list of processes or the log");
    }
}

#[tokio::test]
async fn a_user_of_redis_may_do_what_it_has_to_and_no_more() {
    let redis = Started::new(&render::overlay("traefik")).await;
    let refused = |user: Option<&str>, command: &str, why: &str| {
        let (passed, printed) = redis.cli(user, &command.split(' ').collect::<Vec<_>>());
        assert!(!passed && printed.contains(why), "{user:?}, {command}: {printed}");
    };
    let taken = |user: &str, command: &str| {
        let (passed, printed) = redis.cli(Some(user), &command.split(' ').collect::<Vec<_>>());
        assert!(passed, "{user}, {command}: {printed}");
    };
    refused(None, "ping", "NOAUTH");
    refused(None, "AUTH default x", "WRONGPASS");
    taken("producer", "LPUSH Notification-List hello");
    taken("producer", "PUBLISH Notification-Channel x");
    taken("bff", "LLEN Notification-List");
    taken("operator", "FLUSHALL");
    for (user, commands) in [
        ("producer", &["PING", "GET {Notification-List}:session-key", "RPOP Notification-List"][..]),
        ("bff", &["KEYS *", "ACL LIST", "GET another", "CONFIG SET save 1", "SUBSCRIBE another"][..]),
    ] {
        for command in
            commands.iter().chain(&["FLUSHALL", "SHUTDOWN", "LPUSH another x", "PUBLISH another x"])
        {
            refused(Some(user), command, "NOPERM");
        }
    }
}

/// The append-only file has the writes of a script as a transaction, and Redis loads it with the rights of the user
/// `default`. Without any, each transaction in it would be refused, and what was acknowledged would be lost.
#[tokio::test]
async fn what_a_script_has_written_is_there_after_a_restart() {
    let mut redis = Started::new(&render::overlay("traefik")).await;
    let script =
        "redis.call('HSET', KEYS[1], 'a', '1') redis.call('HSET', KEYS[1], 'b', '2') return 'written'";
    let key = "{Notification-List}:test";
    let (passed, printed) = redis.cli(Some("bff"), &["EVAL", script, "1", key]);
    assert!(passed && printed == "written", "{printed}");
    // The file is synchronised once a second; a process that is killed has written it.
    redis.start_again().await;
    let (_, printed) = redis.cli(Some("bff"), &["HLEN", key]);
    assert_eq!(printed, "2");
}

/// An entry has at most 64 KiB, and a script that claims one copies it. What is far longer is refused while it
/// arrives, by its announced length alone.
#[tokio::test]
async fn an_argument_of_more_than_a_mebibyte_does_not_get_in() {
    let redis = Started::new(&render::overlay("traefik")).await;
    let (_, _, password) = PASSWORDS[1];
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port)).unwrap();
    stream.set_read_timeout(Some(ANSWER_DEADLINE)).unwrap();
    write!(stream, "AUTH producer {password}\r\n").unwrap();
    write!(stream, "*3\r\n$5\r\nLPUSH\r\n$17\r\nNotification-List\r\n${}\r\n", ARGUMENT_MAX_BYTES + 1)
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("+OK") && answer.contains("invalid bulk length"), "{answer}");
}

#[test]
fn redis_does_not_start_with_a_password_that_would_be_something_else_in_a_url() {
    let start = render::root().join("k8s/base/redis/start.sh");
    for wrong in ["", "a b", "a@b", "a\"b", "a\nuser eve on nopass ~* +@all"] {
        let mut command = Command::new("sh");
        command.arg(&start).env("PATH", "/usr/bin:/bin");
        let env = PASSWORDS.map(|(_, variable, password)| (variable, password));
        let output = command.envs(env).env("BFF_PASSWORD", wrong).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}: {printed}");
        assert!(printed.contains("BFF_PASSWORD must be letters"), "{printed}");
    }
}
