use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use carillon_broker::Broker;
use carillon_protocol::Welcome;
use carillon_protocol::limits::HEARTBEAT_MS;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Publishing;
use crate::feed::{Feed, Feeds, Reader};
use crate::hub::connection_id;
use crate::reply::Refusal;

/// At the end, readers are let go one by one over this time, so that they do not all come back at once.
const DRAIN_SPREAD: Duration = Duration::from_secs(5);
/// A reader that is let go comes back within this many milliseconds.
pub(crate) const RECONNECT_MAX_MS: u64 = 500;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) replica: Arc<str>,
    pub(crate) broker: Broker,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) publishing: Publishing,
    /// Cancelled at SIGTERM.
    pub(crate) stop: CancellationToken,
    /// Open sockets and streams.
    pub(crate) readers: TaskTracker,
    /// Names this run of the replica: in front of the ids of all its connections.
    pub(crate) run: String,
}

impl std::ops::Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Adds a reader and says what it is welcomed with.
    pub(crate) async fn join(&self, reader: Reader) -> Result<(Feed, Welcome), Refusal> {
        if self.stop.is_cancelled() {
            let detail = "connect again: another replica takes over";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "this replica is going away", detail));
        }
        let (feed, joined) = self.feeds.join(reader).await?;
        let welcome = Welcome {
            connection: connection_id(&self.run, feed.id()),
            replica: self.replica.to_string(),
            user: None,
            session: None,
            cursor: joined.cursor.to_string(),
            resume: joined.resume,
            heartbeat_ms: HEARTBEAT_MS,
            read: None,
        };
        Ok((feed, welcome))
    }

    /// How long a reader stays after the stop: drawn for each.
    pub(crate) fn drain_delay(&self) -> Duration {
        DRAIN_SPREAD.mul_f64(fastrand::f64())
    }
}
