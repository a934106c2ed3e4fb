//! The life of a reader's connection, whatever its transport: heartbeats, the expiry of its token, the goodbye of a replica
//! that shuts down, and the outputs of its feed. A transport only frames these events.

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

/// A reader that gets a goodbye reconnects within this many milliseconds.
const RECONNECT_MAX_MS: u64 = 500;

/// The connection of one reader.
pub(crate) struct Visit {
    pub(crate) readers: Readers,
    pub(crate) feed: Feed,
    transport: Transport,
    heartbeat: Instant,
    leave: Option<Instant>,
    /// When the token expires.
    expires: Option<Instant>,
    recent: RecentSenders,
}

/// The next event of a connection.
pub(crate) enum VisitEvent {
    /// Frames to write.
    Output(Output),
    /// A heartbeat is due, with the reader's cursor.
    Heartbeat(Cursor),
    /// The replica shuts down; the reader has to reconnect after this many milliseconds.
    Goodbye(u64),
    /// The connection ends with this code and reason.
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

    /// Returns the next event. This is cancel-safe.
    pub(crate) async fn next(&mut self) -> VisitEvent {
        loop {
            if let Some(event) = self.due_event() {
                return event;
            }
            let wake = self.wake_at();
            tokio::select! {
                biased;
                () = self.readers.stop.cancelled(), if self.leave.is_none() => {
                    self.leave = Some(Instant::now() + self.readers.drain_delay());
                }
                // Polled before the feed, since a busy feed would delay the heartbeat for ever.
                () = tokio::time::sleep_until(wake) => {}
                output = self.feed.next() => return match output.close {
                    Some(code) => VisitEvent::End(code, output.close_reason()),
                    None => VisitEvent::Output(output),
                },
            }
        }
    }

    /// Returns the event that is due now, by the clock.
    pub(crate) fn due_event(&mut self) -> Option<VisitEvent> {
        let now = Instant::now();
        if self.leave.is_some_and(|leave| now >= leave) {
            return Some(VisitEvent::Goodbye(fastrand::u64(0..RECONNECT_MAX_MS)));
        }
        if self.expires.is_some_and(|expires| now >= expires) {
            let reason = "the token expired; reconnect with a new one";
            return Some(VisitEvent::End(CloseCode::TOKEN_EXPIRED, reason));
        }
        if now >= self.heartbeat {
            self.heartbeat = next_heartbeat();
            return self.feed.cursor().map(VisitEvent::Heartbeat);
        }
        None
    }

    fn wake_at(&self) -> Instant {
        [self.leave, self.expires].into_iter().flatten().fold(self.heartbeat, Instant::min)
    }

    /// Sets when the reader's new token expires.
    pub(crate) fn renew(&mut self, expires_at_ms: u64) {
        self.expires = Some(self.readers.instant(expires_at_ms));
    }

    /// Records that an output was written.
    pub(crate) fn written(&mut self, output: &Output) {
        metrics::sent(self.transport, output.notifications());
        for message in output.messages() {
            self.readers.traces.record(message, &self.connection());
            // A client of `/sse` cannot acknowledge.
            if !matches!(self.transport, Transport::Sse) {
                self.recent.remember(&message.from, &message.id);
            }
        }
    }

    /// Resolves the messages that a reader names. Ids of notifications that are not messages between users are left out: no
    /// status depends on them.
    pub(crate) fn resolve(&self, named: &[Named]) -> Vec<MessageRef> {
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
