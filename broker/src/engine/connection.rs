use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisFuture, Value};
use tokio::time::Instant;

#[cfg(feature = "memory")]
use super::memory::Server;
use crate::BrokerError;
use crate::limits::CONNECT_TIMEOUT;

/// One shared connection for commands that answer at once. It is opened by the first command, and dropped at the first
/// sign that it is dead, since redis-rs keeps a connection whose peer has vanished; the next command opens a new one.
pub(super) struct SharedConnection {
    endpoint: Endpoint,
    response_timeout: Duration,
    /// Any of the commands that wait for it drives it. A command that is not polled for a while, since another arm of its
    /// `select!` runs, holds up none of the others; in the queue of an async lock it would hold up all of them.
    connection: Mutex<Option<Connecting>>,
}

/// Where the server is.
#[derive(Clone)]
pub(crate) enum Endpoint {
    Redis(Box<Client>),
    #[cfg(feature = "memory")]
    Memory(Server),
}

/// A connection, or the attempt to open it.
type Connecting = Shared<BoxFuture<'static, Result<Connection, BrokerError>>>;

impl SharedConnection {
    pub(super) fn new(endpoint: Endpoint, response_timeout: Duration) -> Self {
        Self { endpoint, response_timeout, connection: Mutex::default() }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Runs one exchange on the connection. A failure is not retried: only the caller knows whether the commands are
    /// idempotent.
    pub(super) async fn run<T, F>(&self, exchange: impl FnOnce(Connection) -> F) -> Result<T, BrokerError>
    where
        F: Future<Output = redis::RedisResult<T>>,
    {
        let connecting = self.connection();
        let connection = connecting.clone().await.inspect_err(|_| self.discard(&connecting))?;
        match exchange(connection).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                // A server that answers is alive, and a new connection would reach the same one. After READONLY the
                // address may lead to another server, which is the primary now.
                if error.code().is_none() || error.code() == Some("READONLY") {
                    self.discard(&connecting);
                }
                Err(error.into())
            }
        }
    }

    /// Runs an exchange that changes nothing. When the connection had died while it was idle, as all do when Redis
    /// restarts, the exchange is repeated once on a new connection.
    pub(super) async fn read<T, F>(&self, exchange: impl Fn(Connection) -> F) -> Result<T, BrokerError>
    where
        F: Future<Output = redis::RedisResult<T>>,
    {
        let began = Instant::now();
        match self.run(&exchange).await {
            Err(BrokerError::Away(_)) if began.elapsed() < CONNECT_TIMEOUT => self.run(exchange).await,
            answer => answer,
        }
    }

    /// Callers that wait for the same attempt share its error; one attempt after the other would take minutes.
    fn connection(&self) -> Connecting {
        let connect = || connect(self.endpoint.clone(), self.response_timeout).boxed().shared();
        self.connection.lock().get_or_insert_with(connect).clone()
    }

    /// Drops a connection that has failed. The late failure of an old one does not drop the new one.
    fn discard(&self, failed: &Connecting) {
        self.connection.lock().take_if(|connection| connection.ptr_eq(failed));
    }
}

async fn connect(endpoint: Endpoint, response_timeout: Duration) -> Result<Connection, BrokerError> {
    match endpoint {
        Endpoint::Redis(client) => {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(response_timeout));
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            within(CONNECT_TIMEOUT, connecting).await.map(Connection::Redis)
        }
        #[cfg(feature = "memory")]
        Endpoint::Memory(server) => Ok(Connection::Memory(server)),
    }
}

/// A connection for commands: to a Redis server, or to the one inside this process.
#[derive(Clone)]
pub(super) enum Connection {
    Redis(MultiplexedConnection),
    #[cfg(feature = "memory")]
    Memory(Server),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Redis(connection) => connection.req_packed_command(command),
            #[cfg(feature = "memory")]
            Self::Memory(server) => Box::pin(async move {
                let replies = server.exchange(&[command]).await?;
                Ok(replies.into_iter().next().unwrap_or(Value::Nil))
            }),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Redis(connection) => connection.req_packed_commands(pipeline, offset, count),
            #[cfg(feature = "memory")]
            Self::Memory(server) => Box::pin(async move {
                let commands: Vec<_> = pipeline.cmd_iter().collect();
                server.exchange(&commands).await
            }),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Redis(connection) => connection.get_db(),
            #[cfg(feature = "memory")]
            Self::Memory(_) => 0,
        }
    }
}

/// Waits for Redis at most `limit`: a peer may accept a connection and never answer.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = redis::RedisResult<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(BrokerError::Away(format!("no answer within {} ms", limit.as_millis()))),
    }
}
