//! How the broker speaks to Redis: a connection for short commands, one for pages of history, one for subscriptions, the
//! beginning that all scripts have in common, and how their answers are read.

mod connection;
#[cfg(feature = "memory")]
pub(crate) mod memory;
pub(crate) mod subscriber;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use carillon_protocol::Position;
use redis::{Client, Cmd, FromRedisValue, Script, ScriptInvocation, TlsCertificates};

use crate::limits::{BULK_RESPONSE_TIMEOUT, RESPONSE_TIMEOUT};
use crate::{BrokerError, FanOut, Names, Settings};
use connection::{Endpoint, SharedConnection};

/// The connections to Redis, with the names and settings that every command needs.
pub(crate) struct Engine {
    connection: SharedConnection,
    /// Pages of history are large: they have a connection of their own, so that they delay no claim, and a longer deadline.
    bulk: SharedConnection,
    names: Names,
    settings: Settings,
}

impl Engine {
    pub(crate) fn new(url: &str, settings: Settings) -> Result<Self, BrokerError> {
        // redis-rs panics on rediss:// without a provider. A second installation fails without effect.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = open(url)?;
        let database = client.get_connection_info().redis_settings().db();
        Ok(Self::at(Endpoint::Redis(Box::new(client)), settings, database))
    }

    #[cfg(feature = "memory")]
    pub(crate) fn memory(server: memory::Server, settings: Settings) -> Self {
        Self::at(Endpoint::Memory(server), settings, 0)
    }

    fn at(endpoint: Endpoint, settings: Settings, database: i64) -> Self {
        Self {
            connection: SharedConnection::new(endpoint.clone(), RESPONSE_TIMEOUT),
            bulk: SharedConnection::new(endpoint, BULK_RESPONSE_TIMEOUT),
            names: settings.names.clone().in_database(database),
            settings,
        }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.connection.endpoint()
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Waits before the next attempt to reach the server. The one in this process notifies when it is reachable again.
    pub(crate) async fn pause(&self, pause: Duration) {
        match self.endpoint() {
            Endpoint::Redis(_) => tokio::time::sleep(pause).await,
            #[cfg(feature = "memory")]
            Endpoint::Memory(server) if server.notifies() => server.reachable().await,
            #[cfg(feature = "memory")]
            Endpoint::Memory(_) => tokio::time::sleep(pause).await,
        }
    }

    /// The first argument of a script that begins with sequence.lua: an id for an epoch that may begin now, which is 64
    /// random bits, and this machine's clock.
    pub(crate) fn call_time(&self) -> String {
        let now_ms = match self.endpoint() {
            Endpoint::Redis(_) => {
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
            }
            #[cfg(feature = "memory")]
            Endpoint::Memory(server) => server.now_ms(),
        };
        format!("{:016x} {now_ms}", fastrand::u64(..))
    }

    /// A call of a script that begins with append.lua, with the key and the arguments that append.lua reads.
    pub(crate) fn appending<'a>(
        &self,
        script: &'a Script,
        appender: &str,
        fan_out: FanOut,
    ) -> ScriptInvocation<'a> {
        let mut call = script.key(self.names.sequence());
        call.arg(self.call_time()).arg(self.names.prefix()).arg(self.names.channels());
        call.arg(appender).arg(fan_out.into_str()).arg(self.settings.retention.to_script());
        call
    }

    /// Runs one command. A failure is not retried: only the caller knows whether the command is idempotent.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        self.connection.run(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// Runs a command that changes nothing, and repeats it once on a new connection when the present one had died.
    pub(crate) async fn read<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        self.connection.read(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// [`Engine::run`] for a script.
    pub(crate) async fn eval<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        self.connection.run(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }

    /// [`Engine::read`] for a script.
    pub(crate) async fn eval_read<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        self.connection.read(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }

    /// [`Engine::eval_read`] for an answer that may be large.
    pub(crate) async fn eval_page<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, BrokerError> {
        self.bulk.read(|mut connection| async move { call.invoke_async(&mut connection).await }).await
    }
}

/// A script that begins with sequence.lua, so that it knows the present epoch and the end of the sequence.
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

/// A client for a URL. Besides the parameters that redis-rs reads, `ca` names a file with the certificates of the
/// authorities that are trusted in place of the public ones.
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

/// Bytes of an answer as a text; what is not UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A position in an answer.
pub(crate) fn position(bytes: &[u8]) -> Result<Position, BrokerError> {
    let text = String::from_utf8_lossy(bytes);
    text.parse().map_err(|_| {
        BrokerError::Refused(format!("'{text}' is not a position; does something else write to our keys?"))
    })
}

/// A position in an answer, or the empty text that a script returns where there is none.
pub(crate) fn optional_position(text: &str) -> Result<Option<Position>, BrokerError> {
    if text.is_empty() { Ok(None) } else { position(text.as_bytes()).map(Some) }
}

/// A duration as an argument of a script.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
