//! How the broker speaks to Redis: a connection for short commands, one for pages of history, one for subscriptions, and
//! what every script begins with.

mod connection;
mod link;
#[cfg(feature = "memory")]
pub(crate) mod memory;
pub(crate) mod subscriber;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Client, Cmd, FromRedisValue, Script, ScriptInvocation, TlsCertificates};

use crate::limits::{BULK_RESPONSE_TIMEOUT, RESPONSE_TIMEOUT};
use crate::{BrokerError, FanOut, Names, Settings};
use link::{Link, Place};

/// What speaks to Redis.
pub(crate) struct Engine {
    link: Link,
    /// Pages of history are large: on a connection of their own they hold up no claim, and their deadline is longer.
    bulk: Link,
    names: Names,
    settings: Settings,
}

impl Engine {
    pub(crate) fn new(url: &str, settings: Settings) -> Result<Self, BrokerError> {
        // redis-rs panics on rediss:// without a provider; a second install is refused, and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = open(url)?;
        let database = client.get_connection_info().redis_settings().db();
        Ok(Self::at(Place::Redis(Box::new(client)), settings, database))
    }

    #[cfg(feature = "memory")]
    pub(crate) fn memory(server: memory::Server, settings: Settings) -> Self {
        Self::at(Place::Memory(server), settings, 0)
    }

    fn at(place: Place, settings: Settings, database: i64) -> Self {
        Self {
            link: Link::new(place.clone(), RESPONSE_TIMEOUT),
            bulk: Link::new(place, BULK_RESPONSE_TIMEOUT),
            names: settings.names.clone().in_database(database),
            settings,
        }
    }

    pub(crate) fn place(&self) -> &Place {
        self.link.place()
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Waits before the next try to reach the server. The one in this process tells when it is back.
    pub(crate) async fn pause(&self, pause: Duration) {
        match self.place() {
            Place::Redis(_) => tokio::time::sleep(pause).await,
            #[cfg(feature = "memory")]
            Place::Memory(server) => server.reachable().await,
        }
    }

    /// The first argument of a script that begins with sequence.lua: an id for an epoch that might begin now, 64 random
    /// bits, and this machine's clock.
    pub(crate) fn call_time(&self) -> String {
        let now_ms = match self.place() {
            Place::Redis(_) => {
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
            }
            #[cfg(feature = "memory")]
            Place::Memory(server) => server.now_ms(),
        };
        format!("{:016x} {now_ms}", fastrand::u64(..))
    }

    /// A call of a script that begins with append.lua, with the key and the arguments that it takes.
    pub(crate) fn appending<'a>(
        &self,
        script: &'a Script,
        appender: &str,
        fan_out: FanOut,
    ) -> ScriptInvocation<'a> {
        let mut call = script.key(self.names.sequence());
        call.arg(self.call_time()).arg(self.names.prefix()).arg(self.names.channels());
        call.arg(appender).arg(fan_out.as_str()).arg(self.settings.retention.to_script());
        call
    }

    /// Runs one command. It is not tried again: only the caller knows whether it is idempotent.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        self.link.run(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// Runs a command that changes nothing, once more on a new connection when the one at hand had died.
    pub(crate) async fn read<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        self.link.ask(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// [`Engine::run`] for a script.
    pub(crate) async fn eval<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        self.link.run(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }

    /// [`Engine::read`] for a script.
    pub(crate) async fn eval_read<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        self.link.ask(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }

    /// [`Engine::eval_read`] for an answer that may be large.
    pub(crate) async fn eval_page<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        self.bulk.ask(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }
}

/// A script that knows the sequence.
pub(crate) fn sequence_script(parts: &[&str]) -> Script {
    Script::new(&[&[include_str!("engine/sequence.lua")], parts].concat().concat())
}

/// A script that appends to history.
pub(crate) fn appending_script(parts: &[&str]) -> Script {
    let prelude = [
        include_str!("history/keep.lua"),
        include_str!("history/timestamp.lua"),
        include_str!("history/append.lua"),
    ];
    sequence_script(&[&prelude, parts].concat())
}

/// A client for a URL. Beside what redis-rs reads in it, `ca` names a file with the certificates of those
/// who may have signed the server's, in place of the public ones.
fn open(url: &str) -> Result<Client, BrokerError> {
    let parsed = redis::parse_redis_url(url);
    let mut options = parsed.iter().flat_map(|url| url.query_pairs());
    let client = match options.find(|(name, _)| name == "ca") {
        None => Client::open(url),
        Some((_, path)) => {
            let root_cert = std::fs::read(&*path)
                .map_err(|error| BrokerError::Url(format!("the certificates of ca={path}: {error}")))?;
            Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
        }
    };
    client.map_err(|error| BrokerError::Url(error.to_string()))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
