//! The state that connections of readers share, and how a reader joins.

use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::limits::HEARTBEAT_MS;
use carillon_protocol::{Cursor, Welcome};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::application::upstream::Outbox;
use crate::delivery::feed::{Feed, Feeds, Joined, Reader};
use crate::delivery::hub::connection_id;
use crate::gate::Gate;
use crate::gate::caller::Caller;
use crate::limits::budget::Budget;
use crate::people::messages::{Messages, TraceSender};
use crate::refusal::Refusal;

/// At shutdown readers are closed one by one over this time, so that they do not all reconnect at once.
const DRAIN_SPREAD: Duration = Duration::from_secs(5);

/// The readers of a replica. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Readers(Arc<Shared>);

/// The state behind [`Readers`].
pub(crate) struct Shared {
    pub(crate) gate: Gate,
    pub(crate) messages: Messages,
    pub(crate) outbox: Outbox,
    pub(crate) replica: Arc<str>,
    /// Names this run of the replica. The ids of all its connections begin with it.
    pub(crate) run: String,
    pub(crate) feeds: Arc<Feeds>,
    /// Records for traces to which connections messages were written.
    pub(crate) traces: TraceSender,
    /// The budget of bytes of unfinished messages from readers.
    pub(crate) unfinished: Arc<Budget>,
    /// Cancelled at SIGTERM.
    pub(crate) stop: CancellationToken,
    /// The open sockets and streams.
    pub(crate) open: TaskTracker,
}

impl std::ops::Deref for Readers {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Readers {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Adds a reader, within the limits and while its credential is not revoked.
    pub(crate) async fn join_feed(&self, caller: &Caller, reader: Reader) -> Result<(Feed, Joined), Refusal> {
        if self.stop.is_cancelled() {
            let detail = "connect again: another replica takes over";
            return Err(Refusal::elsewhere("replica shutting down", detail));
        }
        let permit = self.gate.limits.admit(caller.user(), caller.network)?;
        let topics = self.feeds.take_topic_permits(&reader)?;
        let (mut feed, joined) = self.feeds.join(reader).await?;
        if caller.identity.is_some() || caller.session.is_some() {
            let credential = caller.credential();
            // The credential is checked again now that a revocation finds the reader: one may have arrived since the first
            // check.
            self.feeds.hub().set_credential(feed.id(), Arc::new(credential.clone()));
            if self.gate.revocations.is_revoked(&credential) == Some(true) {
                return Err(Refusal::token("the token or the session was revoked: sign in again"));
            }
        }
        feed.hold_permits(permit, topics);
        Ok((feed, joined))
    }

    /// Adds a reader and returns its welcome.
    pub(crate) async fn join(
        &self,
        caller: &Caller,
        since: Option<Cursor>,
    ) -> Result<(Feed, Welcome), Refusal> {
        let (feed, joined) = self.join_feed(caller, caller.reader(since)).await?;
        let welcome = Welcome {
            connection: connection_id(&self.run, feed.id()),
            replica: self.replica.to_string(),
            user: caller.user().map(str::to_owned),
            session: caller.session.as_ref().map(|open| open.token.clone()),
            cursor: joined.cursor.to_string(),
            resume: joined.resume,
            heartbeat_ms: HEARTBEAT_MS,
            read: self.messages.read_position(caller).await?,
        };
        Ok((feed, welcome))
    }

    /// Converts a time in milliseconds since 1970 to a time of this process's clock.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(at_ms.saturating_sub((self.gate.clock)()))
    }

    /// Draws how long a reader stays after the stop.
    pub(crate) fn drain_delay(&self) -> Duration {
        DRAIN_SPREAD.mul_f64(fastrand::f64())
    }
}
