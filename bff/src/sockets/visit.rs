//! The life of a connection that reads, whatever its transport: heartbeats, the end of its token, the goodbye of a replica
//! that goes away, and what its feed gives. A transport only frames what comes of it.

mod recent;

use std::time::Duration;

use carillon_broker::MessageRef;
use carillon_protocol::limits::HEARTBEAT_MS;
use carillon_protocol::{CloseCode, Cursor, Named};
use tokio::time::Instant;

use crate::delivery::feed::{Feed, Output};
use crate::delivery::hub::connection_id;
use crate::metrics::{self, Transport};
use crate::sockets::readers::Readers;
use recent::RecentSenders;

/// A reader that is let go comes back within this many milliseconds.
const RECONNECT_MAX_MS: u64 = 500;

/// One connection.
pub(crate) struct Visit {
    pub(crate) readers: Readers,
    pub(crate) feed: Feed,
    transport: Transport,
    heartbeat: Instant,
    leave: Option<Instant>,
    /// When the token runs out.
    expires: Option<Instant>,
    recent: RecentSenders,
}

/// What comes next on a connection.
pub(crate) enum Happened {
    /// Frames to write.
    Given(Output),
    /// Nothing happened, and the reader stands here.
    Heartbeat(Cursor),
    /// The replica is going away: come back after so many milliseconds.
    Goodbye(u64),
    /// It ends.
    End(CloseCode, &'static str),
}

impl Visit {
    pub(crate) fn new(
        readers: Readers,
        feed: Feed,
        expires_at_ms: Option<u64>,
        transport: Transport,
    ) -> Self {
        metrics::joined(transport);
        let expires = expires_at_ms.map(|at_ms| readers.instant(at_ms));
        let (heartbeat, leave, recent) = (next_heartbeat(), None, RecentSenders::default());
        Self { readers, feed, transport, heartbeat, leave, expires, recent }
    }

    /// What comes next. A call that is dropped loses nothing.
    pub(crate) async fn next(&mut self) -> Happened {
        loop {
            if let Some(due) = self.due() {
                return due;
            }
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = self.readers.stop.cancelled(), if self.leave.is_none() => {
                    self.leave = Some(Instant::now() + self.readers.drain_delay());
                }
                // Before the feed: a busy one would put off the heartbeat for ever.
                () = tokio::time::sleep_until(wake) => {}
                output = self.feed.next() => return match output.close {
                    Some(code) => Happened::End(code, output.close_reason()),
                    None => Happened::Given(output),
                },
            }
        }
    }

    /// What is due by now, by the clock.
    pub(crate) fn due(&mut self) -> Option<Happened> {
        let now = Instant::now();
        if self.leave.is_some_and(|leave| now >= leave) {
            return Some(Happened::Goodbye(fastrand::u64(0..RECONNECT_MAX_MS)));
        }
        if self.expires.is_some_and(|expires| now >= expires) {
            let reason = "the token has run out; come back with a fresh one";
            return Some(Happened::End(CloseCode::TOKEN_EXPIRED, reason));
        }
        if now >= self.heartbeat {
            self.heartbeat = next_heartbeat();
            return self.feed.cursor().map(Happened::Heartbeat);
        }
        None
    }

    fn wake_at(&self) -> Instant {
        [self.leave, self.expires].into_iter().flatten().fold(self.heartbeat, Instant::min)
    }

    /// Takes in that the reader has a fresh token.
    pub(crate) fn renew(&mut self, expires_at_ms: u64) {
        self.expires = Some(self.readers.instant(expires_at_ms));
    }

    /// Takes in that an output was written.
    pub(crate) fn written(&mut self, output: &Output) {
        metrics::sent(self.transport, output.notifications());
        for message in output.messages() {
            self.readers.written.record(message, &self.connection());
            // A stream of events acknowledges nothing.
            if !matches!(self.transport, Transport::Sse) {
                self.recent.remember(&message.from, &message.id);
            }
        }
    }

    /// The messages that a reader names. Ids of what was not sent by one user to another stay here: they are counted, and
    /// nothing waits for them.
    pub(crate) fn named(&self, named: &[Named]) -> Vec<MessageRef> {
        let messages = named.iter().filter_map(|one| match one {
            Named::Sent { from, id } => Some(MessageRef { from: from.clone(), id: id.clone() }),
            Named::Id(id) => {
                let from = self.recent.sender_of(id)?.to_owned();
                Some(MessageRef { from, id: id.clone() })
            }
        });
        messages.collect()
    }

    /// The id of this connection.
    pub(crate) fn connection(&self) -> String {
        connection_id(&self.readers.run, self.feed.id())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        metrics::left(self.transport);
    }
}

fn next_heartbeat() -> Instant {
    Instant::now() + Duration::from_millis(HEARTBEAT_MS)
}
