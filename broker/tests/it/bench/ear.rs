use std::sync::{Arc, Mutex};

use carillon_broker::{BrokerEvent, Subscriptions};
use carillon_harness::eventually;
use carillon_protocol::Audience;
use tokio_util::sync::DropGuard;

use super::{Bench, DEADLINE, text};

/// A listener.
pub(crate) struct Ear {
    pub(crate) subscriptions: Subscriptions,
    pub(super) received: Arc<Mutex<Vec<BrokerEvent>>>,
    pub(super) _stop: DropGuard,
}

impl Ear {
    /// What happened, but for the signs of life that come each second.
    pub(crate) fn events(&self) -> Vec<BrokerEvent> {
        let is_sign =
            |event: &BrokerEvent| matches!(event, BrokerEvent::Echo { .. } | BrokerEvent::Writes(_));
        self.all_events().into_iter().filter(|event| !is_sign(event)).collect()
    }

    pub(crate) fn all_events(&self) -> Vec<BrokerEvent> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn forget(&self) {
        self.received.lock().unwrap().clear();
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&[BrokerEvent]) -> bool) {
        eventually(what, DEADLINE, async || condition(&self.events())).await;
    }

    /// Waits for everything that was published before.
    pub(crate) async fn catch_up(&self, bench: &Bench) {
        let wakes =
            |events: &[BrokerEvent]| events.iter().filter(|event| **event == BrokerEvent::Wake).count();
        let before = wakes(&self.events());
        eventually("the wake-up", DEADLINE, async || {
            bench.push(&["a wake-up"]).await;
            wakes(&self.events()) > before
        })
        .await;
    }

    /// Waits for a confirmation after the last time that the connection came up.
    pub(crate) async fn until_subscribed_again(&self, audience: &Audience) {
        let is_it = |event: &BrokerEvent| matches!(event, BrokerEvent::Subscribed { audiences, .. } if audiences.iter().any(|(one, _)| one == audience));
        self.until("a new confirmation", |events| {
            let up = events.iter().rposition(|event| *event == BrokerEvent::Up);
            up.is_some_and(|up| events[up..].iter().any(is_it))
        })
        .await;
    }

    pub(crate) async fn until_subscribed(&self, audience: &Audience) {
        let is_it = |event: &BrokerEvent| matches!(event, BrokerEvent::Subscribed { audiences, .. } if audiences.iter().any(|(one, _)| one == audience));
        self.until("a confirmed subscription", |events| events.iter().any(is_it)).await;
    }

    /// The entries that were published, in the order in which they were received.
    pub(crate) fn published(&self) -> Vec<String> {
        let fanouts = self.events().into_iter().filter_map(|event| match event {
            BrokerEvent::Fanout(fanout) => Some(fanout),
            _ => None,
        });
        fanouts.flat_map(|fanout| fanout.entries).map(|entry| text(&entry.raw)).collect()
    }
}
