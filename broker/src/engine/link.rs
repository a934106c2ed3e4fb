use std::time::{Duration, Instant};

use redis::{AsyncConnectionConfig, Client};
use tokio::sync::Mutex;

use super::connection::Connection;
#[cfg(feature = "memory")]
use super::memory::Server;
use crate::BrokerError;
use crate::limits::CONNECT_TIMEOUT;

/// One shared connection for commands that answer at once. It is made when it is first needed and
/// thrown away at the first sign that it is dead, since redis-rs keeps a connection whose peer has
/// vanished; the next command makes a new one.
pub(super) struct Link {
    place: Place,
    response_timeout: Duration,
    state: Mutex<State>,
}

/// Where the server is.
#[derive(Clone)]
pub(crate) enum Place {
    Redis(Box<Client>),
    #[cfg(feature = "memory")]
    Memory(Server),
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Counts connections, so that a late failure of an old one does not throw away the new one.
    generation: u64,
    last_failure: Option<(Instant, BrokerError)>,
}

impl Link {
    pub(super) fn new(place: Place, response_timeout: Duration) -> Self {
        Self { place, response_timeout, state: Mutex::default() }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Runs one exchange on the connection. It is not tried again: only the caller knows whether twice is harmless.
    pub(super) async fn run<T, F>(&self, exchange: impl FnOnce(Connection) -> F) -> Result<T, BrokerError>
    where
        F: Future<Output = redis::RedisResult<T>>,
    {
        let (connection, generation) = self.connection().await?;
        match exchange(connection).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                // A server that answers is there: a new connection would reach the same one. One that became a replica
                // is another matter: behind its address there may be another primary now.
                if error.code().is_none() || error.code() == Some("READONLY") {
                    self.discard(generation).await;
                }
                Err(error.into())
            }
        }
    }

    /// Runs an exchange that changes nothing. When the connection turns out to have died while it was
    /// idle, as all do when Redis restarts, it is asked once more on a new one.
    pub(super) async fn ask<T, F>(&self, exchange: impl Fn(Connection) -> F) -> Result<T, BrokerError>
    where
        F: Future<Output = redis::RedisResult<T>>,
    {
        let asked = Instant::now();
        match self.run(&exchange).await {
            Err(BrokerError::Away(_)) if asked.elapsed() < CONNECT_TIMEOUT => self.run(exchange).await,
            answer => answer,
        }
    }

    async fn connection(&self) -> Result<(Connection, u64), BrokerError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), state.generation));
        }
        // Whoever queued up behind a failing attempt shares its answer; one at a time they would wait for minutes.
        if let Some((at, error)) = &state.last_failure
            && *at > asked
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                state.generation += 1;
                state.connection = Some(connection.clone());
                Ok((connection, state.generation))
            }
            Err(error) => {
                state.last_failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, BrokerError> {
        match &self.place {
            Place::Redis(client) => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT_TIMEOUT))
                    .set_response_timeout(Some(self.response_timeout));
                let connecting = client.get_multiplexed_async_connection_with_config(&config);
                within(CONNECT_TIMEOUT, connecting).await.map(Connection::Redis)
            }
            #[cfg(feature = "memory")]
            Place::Memory(server) => Ok(Connection::Memory(server.clone())),
        }
    }

    async fn discard(&self, generation: u64) {
        let mut state = self.state.lock().await;
        if state.generation == generation {
            state.connection = None;
        }
    }
}

/// Waits for Redis, but not for ever: a peer that accepts and says nothing would hold us.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = redis::RedisResult<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(BrokerError::Away(format!("no answer within {} ms", limit.as_millis()))),
    }
}
