use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use carillon_auth::identity::{Identities, IdentityOptions};
use carillon_bff::signed::Signing;
use carillon_bff::{
    AllowOptions, LimitOptions, Open, PresenceOptions, Publishing, Replica, Settings, Upstream, now_ms,
    random,
};
use carillon_broker::{Broker, FanOut, Faults, Names};
use carillon_harness::{Process, RedisServer, eventually, free_port};
use carillon_service::{Readiness, Tasks, Timeouts};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// It only ends a failed test, so it may be generous.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A Redis server and what pushes to it.
pub(crate) struct World {
    pub(crate) redis: RedisServer,
    pub(crate) broker: Broker,
}

/// One `bff` process.
pub(crate) struct Bff {
    pub(crate) name: String,
    pub(crate) process: Process,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl World {
    /// One in a database of the shared server.
    pub(crate) fn new() -> Self {
        Self::over(RedisServer::shared())
    }

    /// One with a server of its own: to stop it, to limit its memory, or to publish on it by hand.
    pub(crate) fn alone() -> Self {
        Self::over(RedisServer::start())
    }

    pub(crate) fn over(redis: RedisServer) -> Self {
        let broker = Broker::redis(&redis.url(), Names::default()).unwrap();
        Self { redis, broker }
    }

    /// A replica that is ready.
    pub(crate) async fn bff(&self, name: &str) -> Bff {
        let bff = Bff::spawn(name, &self.redis.url(), &[]);
        bff.until_ready().await;
        bff
    }

    pub(crate) async fn bffs(&self, count: usize) -> Vec<Bff> {
        let bffs: Vec<_> =
            (1..=count).map(|n| Bff::spawn(&format!("bff-{n}"), &self.redis.url(), &[])).collect();
        for bff in &bffs {
            bff.until_ready().await;
        }
        bffs
    }

    pub(crate) async fn push(&self, entries: impl IntoIterator<Item = String>) {
        let entries: Vec<_> = entries.into_iter().map(String::into_bytes).collect();
        // Entries with an id may be pushed again when an outage lost the reply.
        eventually("a push", DEADLINE, async || self.broker.push(&entries).await.is_ok()).await;
    }
}

impl Bff {
    pub(crate) fn spawn(name: &str, redis_url: &str, args: &[&str]) -> Self {
        Self::spawn_at(name, (Ipv4Addr::LOCALHOST, free_port()).into(), redis_url, args)
    }

    pub(crate) fn spawn_at(name: &str, listen: SocketAddr, redis_url: &str, args: &[&str]) -> Self {
        Self::spawn_program(env!("CARGO_BIN_EXE_bff"), name, listen, redis_url, args)
    }

    /// [`Bff::spawn_at`] for the program of another release.
    pub(crate) fn spawn_program(
        program: &str,
        name: &str,
        listen: SocketAddr,
        redis_url: &str,
        args: &[&str],
    ) -> Self {
        Self::spawn_by(name, listen, redis_url, |_, env| Process::spawn(program, args, env))
    }

    /// One with more variables.
    pub(crate) fn spawn_with_env(name: &str, redis_url: &str, args: &[&str], more: &[(&str, &str)]) -> Self {
        let listen = (Ipv4Addr::LOCALHOST, free_port()).into();
        Self::spawn_by(name, listen, redis_url, |program, env| {
            Process::spawn(program, args, &[env, more].concat())
        })
    }

    /// One that prints to `stderr`.
    pub(crate) fn spawn_with_stderr(name: &str, redis_url: &str, stderr: impl Into<Stdio>) -> Self {
        let listen = (Ipv4Addr::LOCALHOST, free_port()).into();
        Self::spawn_at_with_stderr(name, listen, redis_url, stderr)
    }

    pub(crate) fn spawn_at_with_stderr(
        name: &str,
        listen: SocketAddr,
        redis_url: &str,
        stderr: impl Into<Stdio>,
    ) -> Self {
        Self::spawn_by(name, listen, redis_url, |program, env| {
            Process::spawn_with_stderr(program, &[], env, stderr)
        })
    }

    fn spawn_by(
        name: &str,
        listen: SocketAddr,
        redis_url: &str,
        spawn: impl FnOnce(&str, &[(&str, &str)]) -> Process,
    ) -> Self {
        let admin: SocketAddr = (Ipv4Addr::LOCALHOST, free_port()).into();
        let env = [
            ("REDIS_URL", redis_url),
            ("REPLICA", name),
            ("LISTEN", &listen.to_string()),
            ("ADMIN_LISTEN", &admin.to_string()),
        ];
        let process = spawn(env!("CARGO_BIN_EXE_bff"), &env);
        Self { name: name.to_owned(), process, listen, admin }
    }

    pub(crate) fn ws(&self) -> String {
        format!("ws://{}/ws", self.listen)
    }

    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    pub(crate) fn port(&self) -> u16 {
        self.listen.port()
    }

    /// Status and body of a path on the admin port; status 0 without a response.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        match reqwest::get(format!("http://{}{path}", self.admin)).await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    }

    pub(crate) fn admin_addr(&self) -> String {
        self.admin.to_string()
    }

    pub(crate) async fn until_ready(&self) {
        self.until_ready_is(200).await;
    }

    pub(crate) async fn until_not_ready(&self) {
        self.until_ready_is(503).await;
    }

    async fn until_ready_is(&self, status: u16) {
        let end = Instant::now() + DEADLINE;
        loop {
            let (found, body) = self.admin("/ready").await;
            if found == status {
                return;
            }
            let printed = || self.process.stderr().join("\n");
            assert!(
                Instant::now() < end,
                "{}: /ready is {found} {body}, not {status}\n{}",
                self.name,
                printed()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The sum of a metric over the labels that contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(labels));
        lines
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let matches = series.split('{').next() == Some(name);
                matches.then(|| value.parse::<f64>().unwrap())
            })
            .sum()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// Waits until nothing is left in the list, and returns how long that took.
pub(crate) async fn until_claimed(broker: &Broker) -> Duration {
    let start = Instant::now();
    eventually("all are claimed", DEADLINE, async || broker.waiting().await.unwrap() == 0).await;
    start.elapsed()
}

/// A notification for everyone.
pub(crate) fn entry(id: impl std::fmt::Display) -> String {
    format!(r#"{{"id":"{id}","title":"t","body":"b"}}"#)
}

/// A replica in this process, where time can be paused.
pub(crate) async fn in_process() -> (Broker, Faults, SocketAddr) {
    in_process_with(Signing::default(), None).await
}

/// The same, with an application behind it.
pub(crate) async fn in_process_with(
    signing: Signing,
    upstream: Option<Upstream>,
) -> (Broker, Faults, SocketAddr) {
    let (broker, faults) = Broker::memory(Arc::new(now_ms));
    let settings = Settings { signing, upstream, ..settings(&IdentityOptions::default()) };
    let addr = serve(&broker, settings).await;
    (broker, faults, addr)
}

/// One of the replicas in this process that share a broker.
pub(crate) async fn replica(broker: &Broker, identities: &IdentityOptions) -> SocketAddr {
    serve(broker, settings(identities)).await
}

/// What such a replica is started with.
pub(crate) fn settings(identities: &IdentityOptions) -> Settings {
    Settings {
        replica: "bff-1".to_owned(),
        fan_out: FanOut::All,
        publishing: Publishing { open: Open::ThisMachine, ..Publishing::default() },
        identities: Identities::new(identities).unwrap(),
        signing: Signing::default(),
        upstream: None,
        demo: None,
        allow: AllowOptions { jobs: true, anonymous_messages: true },
        does_jobs: true,
        static_dir: None,
        limits: LimitOptions::default(),
        timeouts: Timeouts::default(),
        presence: PresenceOptions::default(),
        clock: Arc::new(now_ms),
        random: Arc::new(random),
    }
}

/// Starts one in this process.
pub(crate) async fn serve(broker: &Broker, settings: Settings) -> SocketAddr {
    let tasks = Tasks::default();
    let readiness = Readiness::default();
    let replica = Replica::start(settings, broker, &readiness, &tasks).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn("readers' port", replica.serve(listener));
    eventually("the replica is ready", DEADLINE, async || readiness.is_ready()).await;
    addr
}
