use std::sync::Arc;
use std::time::Duration;

use carillon_broker::Broker;
use carillon_protocol::limits::HEARTBEAT_MS;
use carillon_protocol::{Cursor, Welcome};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::config::{AllowOptions, Publishing};
use crate::feed::{Clock, Feed, Feeds, Joined, Reader};
use crate::hub::connection_id;
use crate::identity::Identities;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::messages::Written;
use crate::reader::Caller;
use crate::reply::Refusal;
use crate::revocations::Revocations;
use crate::sealing::Sealing;
use crate::signing::Signing;

/// At the end, readers are let go one by one over this time, so that they do not all come back at once.
const DRAIN_SPREAD: Duration = Duration::from_secs(5);

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) replica: Arc<str>,
    pub(crate) broker: Broker,
    pub(crate) feeds: Arc<Feeds>,
    pub(crate) publishing: Publishing,
    pub(crate) allow: AllowOptions,
    pub(crate) limits: Arc<Limits>,
    pub(crate) identities: Identities,
    pub(crate) signing: Signing,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) sealing: Arc<Sealing>,
    /// Records to which connections messages were written.
    pub(crate) written: Written,
    /// Notified when a job was put into the queue.
    pub(crate) jobs: Arc<Notify>,
    /// Notified when a message for the application was stored; `None` where there is no application.
    pub(crate) upstream: Option<Arc<Notify>>,
    /// How full Redis is.
    pub(crate) memory: Arc<Memory>,
    /// What pages of history over HTTP are taken from.
    pub(crate) page_budget: Arc<Budget>,
    /// What messages of readers that are not finished yet are taken from.
    pub(crate) unfinished: Arc<Budget>,
    /// What bodies of requests are taken from.
    pub(crate) body_budget: Arc<Budget>,
    /// Milliseconds since 1970.
    pub(crate) clock: Clock,
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

    /// Adds a reader, within the limits and while the caller is let in.
    pub(crate) async fn attach(&self, caller: &Caller, reader: Reader) -> Result<(Feed, Joined), Refusal> {
        if self.stop.is_cancelled() {
            let detail = "connect again: another replica takes over";
            return Err(Refusal::elsewhere("this replica is going away", detail));
        }
        let place = self.limits.admit(caller.user(), caller.network)?;
        let topics = self.feeds.take_topics(&reader)?;
        let (mut feed, joined) = self.feeds.join(reader).await?;
        if caller.identity.is_some() || caller.session.is_some() {
            let credential = caller.credential();
            // Looked at again now that a revocation finds the reader: one may have come between.
            self.feeds.hub().admit(feed.id(), Arc::new(credential.clone()));
            if self.revocations.refuse(&credential) == Some(true) {
                return Err(Refusal::token("the token or the session was revoked: sign in again"));
            }
        }
        feed.hold(place, topics);
        Ok((feed, joined))
    }

    /// Adds a reader and says what it is welcomed with.
    pub(crate) async fn join(
        &self,
        caller: &Caller,
        since: Option<Cursor>,
    ) -> Result<(Feed, Welcome), Refusal> {
        let (feed, joined) = self.attach(caller, caller.reader(since)).await?;
        let welcome = Welcome {
            connection: connection_id(&self.run, feed.id()),
            replica: self.replica.to_string(),
            user: caller.user().map(str::to_owned),
            session: caller.session.as_ref().map(|open| open.token.clone()),
            cursor: joined.cursor.to_string(),
            resume: joined.resume,
            heartbeat_ms: HEARTBEAT_MS,
            read: self.read_position(caller).await?,
        };
        Ok((feed, welcome))
    }

    /// The moment of this process's clock that is `at_ms` since 1970.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(at_ms.saturating_sub((self.clock)()))
    }

    /// How long a reader stays after the stop: drawn for each.
    pub(crate) fn drain_delay(&self) -> Duration {
        DRAIN_SPREAD.mul_f64(fastrand::f64())
    }
}
