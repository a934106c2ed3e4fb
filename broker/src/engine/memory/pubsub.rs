use std::collections::BTreeSet;
use std::sync::Arc;

use redis::RedisResult;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Bytes, Server, Wire, away};
use crate::BrokerError;

/// Messages that wait for one subscriber at most; beyond it the subscriber is disconnected, as Redis does with a slow one.
const WAITING_MAX_MESSAGES: usize = 4_096;

/// A channel, and a message that was published on it.
pub(in crate::engine) type Message = (String, Bytes);

/// A message, and when it arrives where it goes over a network.
type Sent = (Message, Option<Instant>);

#[derive(Default)]
pub(super) struct Subscribers {
    all: Vec<Subscriber>,
    added: u64,
}

struct Subscriber {
    id: u64,
    channels: BTreeSet<Bytes>,
    messages: mpsc::Sender<Sent>,
    wire: Option<Arc<Wire>>,
}

/// A connection that is subscribed.
pub(crate) struct Subscription {
    server: Server,
    id: u64,
    messages: mpsc::Receiver<Sent>,
    /// The next message, while it is under way.
    coming: Option<Sent>,
}

impl Subscribers {
    /// Sends a message to all subscribers, and returns how many received it. A subscriber that has fallen behind is
    /// disconnected, as Redis does with one that does not read.
    pub(super) fn publish(&mut self, channel: &[u8], message: &[u8]) -> i64 {
        let mut subscribed = 0;
        self.all.retain(|subscriber| {
            if !subscriber.channels.contains(channel) {
                return true;
            }
            subscribed += 1;
            let name = String::from_utf8_lossy(channel).into_owned();
            let at = match &subscriber.wire {
                None => None,
                Some(wire) => match wire.publish() {
                    None => return true,
                    at => at,
                },
            };
            subscriber.messages.try_send(((name, message.to_vec()), at)).is_ok()
        });
        subscribed
    }

    pub(super) fn cut(&mut self) {
        self.all.clear();
    }

    /// Ends the subscriptions that go over a network.
    pub(super) fn cut_wire(&mut self, cut: &Arc<Wire>) {
        self.all.retain(|subscriber| subscriber.wire.as_ref().is_none_or(|wire| !Arc::ptr_eq(wire, cut)));
    }

    fn get(&mut self, id: u64) -> Option<&mut Subscriber> {
        self.all.iter_mut().find(|subscriber| subscriber.id == id)
    }
}

impl Server {
    /// A connection for subscriptions.
    pub(in crate::engine) async fn subscriber(&self) -> RedisResult<Subscription> {
        self.carry(|| self.subscribe()).await
    }

    fn subscribe(&self) -> RedisResult<Subscription> {
        let mut data = self.data();
        if data.faults.away {
            return Err(away("a test has taken the server away"));
        }
        let (sender, messages) = mpsc::channel(WAITING_MAX_MESSAGES);
        data.subscribers.added += 1;
        let id = data.subscribers.added;
        let wire = self.wire.clone();
        data.subscribers.all.push(Subscriber { id, channels: BTreeSet::new(), messages: sender, wire });
        drop(data);
        Ok(Subscription { server: self.clone(), id, messages, coming: None })
    }

    /// Waits until the server can be reached.
    pub(in crate::engine) async fn reachable(&self) {
        loop {
            let back = self.shared.back.notified();
            if !self.data().faults.away {
                return;
            }
            back.await;
        }
    }
}

impl Subscription {
    /// Sends a command of this connection, and waits for its confirmation; `command` returns whether the server still has the
    /// connection.
    pub(in crate::engine) async fn confirm(
        &self,
        command: impl FnOnce(&Self) -> bool,
    ) -> Result<(), BrokerError> {
        let run = || if command(self) { Ok(()) } else { Err(away("the connection was closed")) };
        Ok(self.server.carry(run).await?)
    }

    /// Subscribes, and returns whether the connection is still open.
    pub(in crate::engine) fn subscribe(&self, channels: &[String]) -> bool {
        self.change(|known| known.extend(channels.iter().map(|channel| channel.as_bytes().to_vec())))
    }

    /// Unsubscribes, and returns whether the connection is still open.
    pub(in crate::engine) fn unsubscribe(&self, channels: &[String]) -> bool {
        self.change(|known| known.retain(|one| !channels.iter().any(|channel| channel.as_bytes() == one)))
    }

    /// Whether the server still has this connection.
    pub(in crate::engine) fn is_alive(&self) -> bool {
        self.change(|_| {})
    }

    /// The next message; `None` when the connection was cut.
    pub(in crate::engine) async fn next(&mut self) -> Option<Message> {
        if self.coming.is_none() {
            self.coming = Some(self.messages.recv().await?);
        }
        if let Some((_, Some(at))) = &self.coming {
            sleep_until(*at).await;
        }
        self.coming.take().map(|(message, _)| message)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<Bytes>)) -> bool {
        let mut data = self.server.data();
        let subscriber = data.subscribers.get(self.id);
        subscriber.map(|subscriber| change(&mut subscriber.channels)).is_some()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let id = self.id;
        self.server.data().subscribers.all.retain(|subscriber| subscriber.id != id);
    }
}
