use std::collections::BTreeSet;

use tokio::sync::mpsc;

use super::{Bytes, Server};

/// Messages that wait for one subscriber at most; beyond it the subscriber is disconnected, as Redis does with a slow one.
const WAITING_MAX_MESSAGES: usize = 4_096;

/// A channel, and a message that was published on it.
pub(in crate::engine) type Message = (String, Bytes);

#[derive(Default)]
pub(super) struct Subscribers {
    all: Vec<Subscriber>,
    added: u64,
}

struct Subscriber {
    id: u64,
    channels: BTreeSet<Bytes>,
    messages: mpsc::Sender<Message>,
}

/// A connection that is subscribed.
pub(crate) struct Subscription {
    server: Server,
    id: u64,
    messages: mpsc::Receiver<Message>,
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
            subscriber.messages.try_send((name, message.to_vec())).is_ok()
        });
        subscribed
    }

    pub(super) fn cut(&mut self) {
        self.all.clear();
    }

    fn get(&mut self, id: u64) -> Option<&mut Subscriber> {
        self.all.iter_mut().find(|subscriber| subscriber.id == id)
    }
}

impl Server {
    /// A connection for subscriptions; `None` while the server is away.
    pub(in crate::engine) fn subscriber(&self) -> Option<Subscription> {
        let mut data = self.data();
        if data.faults.away {
            return None;
        }
        let (sender, messages) = mpsc::channel(WAITING_MAX_MESSAGES);
        data.subscribers.added += 1;
        let id = data.subscribers.added;
        data.subscribers.all.push(Subscriber { id, channels: BTreeSet::new(), messages: sender });
        Some(Subscription { server: self.clone(), id, messages })
    }

    /// Waits until the server can be reached.
    pub(in crate::engine) async fn reachable(&self) {
        loop {
            let back = self.0.back.notified();
            if !self.data().faults.away {
                return;
            }
            back.await;
        }
    }
}

impl Subscription {
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
        self.messages.recv().await
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
