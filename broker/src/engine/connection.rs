use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisFuture, Value};

#[cfg(feature = "memory")]
use super::memory::Server;

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
            Self::Memory(server) => Box::pin(std::future::ready(server.execute(command))),
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
            Self::Memory(server) => {
                let replies = pipeline.cmd_iter().map(|command| server.execute(command));
                let replies: redis::RedisResult<Vec<_>> = replies.collect();
                Box::pin(std::future::ready(replies))
            }
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
