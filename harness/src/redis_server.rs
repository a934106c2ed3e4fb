use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

use crate::free_port;
use crate::leash::Leash;

/// A server that does not answer after this time has failed.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// The wait before the server is queried again.
const POLL: Duration = Duration::from_millis(5);
/// Maximum starts, which may fail because another process took the port first.
const TRIES: usize = 5;
/// Databases of the shared server: one for each test of a process.
const DATABASES: u16 = 2_000;
/// Commands that affect more than one database. Channels do not belong to a database.
const OF_THE_WHOLE_SERVER: [&str; 11] = [
    "ACL",
    "CLIENT",
    "CONFIG",
    "DEBUG",
    "FLUSHALL",
    "INFO",
    "MONITOR",
    "PUBLISH",
    "REPLICAOF",
    "SCRIPT",
    "SHUTDOWN",
];

/// The server of all tests of this process that do not need their own.
static SHARED: LazyLock<RedisServer> =
    LazyLock::new(|| RedisServer::start_with(&["--databases", &DATABASES.to_string()]));

/// A real `redis-server` on a free loopback port, killed when it is dropped or when the test process
/// ends in any way. All methods block: they take some milliseconds.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    /// The number of the database, not 0 on the shared server.
    database: u16,
    args: Vec<String>,
    dir: Mutex<TempDir>,
    running: Mutex<Option<Leash>>,
}

impl RedisServer {
    /// Starts a server that keeps nothing when it stops.
    ///
    /// # Panics
    /// When `redis-server` is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server that has every acknowledged write on disk.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub fn start_durable() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts a server with options, as on `redis-server`'s command line.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub fn start_with(args: &[&str]) -> Self {
        for _ in 0..TRIES {
            let server = Self {
                port: free_port(),
                database: 0,
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                dir: Mutex::new(new_dir()),
                running: Mutex::new(None),
            };
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server ended at its start {TRIES} times; run it with {args:?} to see why");
    }

    /// Returns a separate database on the server that the tests of this process share. Commands that affect the whole server
    /// are refused.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    pub fn shared() -> Self {
        static LAST: AtomicU16 = AtomicU16::new(0);
        let database = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(database < DATABASES, "the tests of a process have {DATABASES} databases");
        Self {
            port: SHARED.port,
            database,
            args: Vec::new(),
            dir: Mutex::new(new_dir()),
            running: Mutex::new(None),
        }
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        let server = format!("redis://127.0.0.1:{}", self.port);
        if self.database == 0 { server } else { format!("{server}/{}", self.database) }
    }

    /// Returns its port, which never changes.
    ///
    /// # Panics
    /// When the server is shared: the port alone leads to the database of another test.
    pub fn port(&self) -> u16 {
        self.must_be_own("its port");
        self.port
    }

    /// Returns its address, for a [`crate::Proxy`].
    ///
    /// # Panics
    /// As [`RedisServer::port`].
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// When the server is shared.
    pub fn stop(&self) {
        self.must_be_own("a stop");
        if let Some(mut leash) = self.running.lock().take() {
            leash.kill();
        }
    }

    /// Starts it again on its port, with the data that it had on disk.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        self.stop();
        assert!(
            (0..TRIES).any(|_| self.launch()),
            "redis-server ended when it was started again on port {}",
            self.port
        );
    }

    /// Starts it again on its port, without any data.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again_empty(&self) {
        self.stop();
        *self.dir.lock() = new_dir();
        self.start_again();
    }

    /// Returns what `redis-cli` prints for one command.
    ///
    /// # Panics
    /// When `redis-cli` is missing, Redis answers with an error, or the command concerns all of a shared server.
    #[must_use = "use `run` when the answer does not matter"]
    pub fn cli(&self, args: &[&str]) -> String {
        if let Some(command) = args.first().filter(|command| OF_THE_WHOLE_SERVER.contains(command)) {
            self.must_be_own(command);
        }
        let output = Command::new("redis-cli")
            .args(["-e", "-p", &self.port.to_string(), "-n", &self.database.to_string()])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| missing("redis-cli", "redis-tools", &error));
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "redis-cli {args:?}: {}{}", stdout.trim_end(), stderr.trim_end());
        stdout.trim_end_matches('\n').to_owned()
    }

    /// Runs [`RedisServer::cli`] for its effect only.
    ///
    /// # Panics
    /// As [`RedisServer::cli`].
    pub fn run(&self, args: &[&str]) {
        let _ = self.cli(args);
    }

    fn must_be_own(&self, what: &str) {
        assert!(self.database == 0, "{what}: this test needs a server of its own");
    }

    /// Starts the process; returns whether it runs: it ends at once when its port is taken.
    fn launch(&self) -> bool {
        let dir = self.dir.lock();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--enable-debug-command", "local", "--dir"])
            .arg(dir.path())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut leash = Leash::spawn(&mut command)
            .unwrap_or_else(|error| missing("redis-server", "redis-server", &error));
        let end = Instant::now() + START_DEADLINE;
        while !self.answers() {
            if leash.ended().is_some() {
                return false;
            }
            assert!(Instant::now() < end, "redis-server did not answer within {START_DEADLINE:?}");
            std::thread::sleep(POLL);
        }
        // Another server may have the port and answer, while ours has just ended.
        if leash.ended().is_some() {
            return false;
        }
        *self.running.lock() = Some(leash);
        true
    }

    /// Whether it answers a PING, which is written by hand, since only `broker` may use a Redis client. A server that
    /// requires a password counts as up; one that still loads its data does not.
    fn answers(&self) -> bool {
        let query = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(START_DEADLINE))?;
            stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer)?;
            Ok(&answer == b"+PONG\r\n" || answer.starts_with(b"-NOAUTH"))
        };
        query().unwrap_or(false)
    }
}

fn new_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn missing(program: &str, package: &str, error: &std::io::Error) -> ! {
    if error.kind() == ErrorKind::NotFound {
        panic!("the tests need {program}: apt-get install {package}");
    }
    panic!("{program} cannot be run: {error}");
}
