//! A small Redis inside this process: the commands that the scripts of this crate use, over a map of keys. It runs the same
//! scripts as a Redis server, so that each rule is written once. The demo and fast tests use it.

mod commands;
mod faults;
mod keyspace;
mod link;
mod lua;
mod pubsub;
mod stream;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::sync::Notify;

pub use faults::Faults;
use keyspace::Keyspace;
use link::Wire;
pub use link::{Delay, Link};
use lua::Scripts;
pub(super) use pubsub::Subscription;

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// An argument of a command, a key, a field, a member or a value.
type Bytes = Vec<u8>;
/// The answer to a command; an error begins with its code, as in `WRONGTYPE …`.
type Reply = Result<Value, String>;

/// The server: cheap to clone, shared by all connections to it.
#[derive(Clone)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    /// The network on the way to it, where a simulation has one.
    wire: Option<Arc<Wire>>,
}

struct Shared {
    /// One command or script at a time, as on a Redis server.
    scripts: Mutex<Scripts>,
    data: Arc<Mutex<Data>>,
    /// Notified when the server is reachable again.
    back: Notify,
}

/// Everything that a command can read or change.
struct Data {
    keys: Keyspace,
    subscribers: pubsub::Subscribers,
    /// Names the data set: a restart without data, and a promoted replica, have another name.
    replid: String,
    faults: faults::Switches,
}

impl Server {
    pub(crate) fn new(clock: Clock) -> Self {
        let data = Arc::new(Mutex::new(Data {
            keys: Keyspace::new(clock),
            subscribers: pubsub::Subscribers::default(),
            replid: random_replid(),
            faults: faults::Switches::default(),
        }));
        let scripts = Mutex::new(Scripts::new(Arc::clone(&data)));
        Self { shared: Arc::new(Shared { scripts, data, back: Notify::new() }), wire: None }
    }

    /// The clock of the process; the answer to `TIME` may differ from it.
    pub(super) fn now_ms(&self) -> u64 {
        self.data().keys.now_ms()
    }

    /// The same server, reached over a network.
    fn over(&self, wire: &Arc<Wire>) -> Self {
        Self { shared: Arc::clone(&self.shared), wire: Some(Arc::clone(wire)) }
    }

    /// Carries out commands of a connection, and returns their replies when they have come back.
    pub(super) async fn exchange(&self, commands: &[&Cmd]) -> RedisResult<Vec<Value>> {
        self.carry(|| commands.iter().map(|command| self.execute(command)).collect()).await
    }

    /// Does something at the server, on whose way there may be a network.
    async fn carry<T>(&self, act: impl FnOnce() -> RedisResult<T>) -> RedisResult<T> {
        match &self.wire {
            None => act(),
            Some(wire) => wire.exchange(act).await,
        }
    }

    /// Whether the server notifies when it is reachable again; over a network it cannot.
    pub(super) fn notifies(&self) -> bool {
        self.wire.is_none()
    }

    /// Carries out one command.
    fn execute(&self, command: &Cmd) -> RedisResult<Value> {
        let arguments: Vec<Bytes> = command
            .args_iter()
            .map(|argument| match argument {
                redis::Arg::Simple(bytes) => bytes.to_vec(),
                _ => b"0".to_vec(),
            })
            .collect();
        let mut scripts = self.shared.scripts.lock();
        if self.data().faults.away {
            return Err(away("a test has taken the server away"));
        }
        let name = arguments.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let reply = match name.as_slice() {
            b"EVALSHA" | b"EVAL" | b"SCRIPT" => scripts.run(&arguments),
            _ => self.data().call(&arguments),
        };
        let lost = self.data().faults.lose(&arguments);
        drop(scripts);
        if lost {
            return Err(away("the command was carried out, and its reply was lost"));
        }
        reply.map_err(|error| error_of(&error))
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.shared.data.lock()
    }
}

/// The error of a client whose connection ended.
fn away(detail: &str) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, detail).into()
}

/// An error as redis-rs reads it from a server, with its code.
fn error_of(error: &str) -> RedisError {
    let line = format!("-{}\r\n", error.replace(['\r', '\n'], " "));
    match redis::parse_redis_value(line.as_bytes()) {
        Ok(Value::ServerError(error)) => error.into(),
        _ => away(error),
    }
}

fn random_replid() -> String {
    (0..5).map(|_| format!("{:08x}", fastrand::u32(..))).collect()
}
