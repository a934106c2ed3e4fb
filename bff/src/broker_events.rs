use std::sync::Arc;

use anyhow::bail;
use carillon_broker::{Broker, BrokerEvent, FanOut, Revocation, Subscriptions};
use carillon_service::Latch;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::delivery::hub::{Hub, Recipients, Value};
use crate::gate::revocations::Revocations;
use crate::gate::session_key::SessionKey;

/// Passes the broker's events to the hub, the revocations and the session key, wakes the dispatcher, and keeps readiness up
/// to date: a replica that does not receive fan-out must not get readers.
pub(crate) struct BrokerEvents {
    pub(crate) broker: Broker,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) hub: Arc<Hub>,
    pub(crate) wake: Arc<Notify>,
    /// Set while the echo of the replica arrives on the fan-out connection.
    pub(crate) received: Latch,
    /// Set while Redis accepts writes.
    pub(crate) writes: Latch,
    pub(crate) fan_out: FanOut,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) session_key: Arc<SessionKey>,
}

impl BrokerEvents {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (broker, subscriptions, fan_out) =
            (self.broker.clone(), self.subscriptions.clone(), self.fan_out);
        let conflict = Notify::new();
        let (mut other, mut refused) = (None, None);
        let listening = broker.listen(&subscriptions, fan_out, |event| {
            if let BrokerEvent::OtherMode(mode) = &event {
                other = Some(mode.clone());
                conflict.notify_one();
            }
            self.handle(event, &mut refused);
        });
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = listening => bail!("the fan-out listener ended"),
            () = conflict.notified() => {
                let (other, own) = (other.unwrap_or_default(), fan_out.into_str());
                bail!(
                    "replicas with FANOUT={other} run on this Redis, and this one has FANOUT={own}: give all of them the same value, and stop the others first"
                )
            }
        }
    }

    /// `refused` is the last logged reason why Redis refuses writes.
    fn handle(&self, event: BrokerEvent, refused: &mut Option<String>) {
        let Self { hub, received, writes, revocations, session_key, wake, .. } = self;
        match event {
            BrokerEvent::Up => {
                session_key.reload.notify_one();
                revocations.reload();
                wake.notify_one();
            }
            BrokerEvent::Down => {
                received.set(false);
                hub.values_lost();
                // With FANOUT=own, readers get entries from the dispatcher alone and need no connection to stay live.
                if self.fan_out == FanOut::All {
                    hub.connection_lost();
                }
            }
            BrokerEvent::Subscribed { audiences, tail } => {
                if self.fan_out == FanOut::All {
                    hub.subscribed(&audiences, &tail);
                }
                hub.values_received(audiences.iter().map(|(audience, _)| audience));
            }
            BrokerEvent::Echo { tail } => {
                received.set(true);
                if self.fan_out == FanOut::All {
                    hub.echo(&tail);
                }
            }
            BrokerEvent::Writes(Ok(())) => {
                writes.set(true);
                *refused = None;
            }
            BrokerEvent::Writes(Err(reason)) => {
                writes.set(false);
                if refused.is_none() {
                    tracing::warn!(reason, "Redis refuses writes");
                    *refused = Some(reason);
                }
            }
            BrokerEvent::OtherMode(_) => writes.set(false),
            BrokerEvent::Undecodable(audience) => hub.undecodable(&audience),
            BrokerEvent::Wake => wake.notify_one(),
            BrokerEvent::Fanout(fanout) => {
                if self.fan_out == FanOut::All {
                    hub.fanout(&fanout);
                }
            }
            BrokerEvent::Revoked(revocation) => {
                revocations.add(&revocation, hub);
                if matches!(revocation, Revocation::SessionKey { .. }) {
                    session_key.reload.notify_one();
                }
            }
            BrokerEvent::RevocationsRestored => revocations.reload(),
            BrokerEvent::PresenceChanged { user } => hub.value_is_due(Value::Presence(user), Recipients::All),
            BrokerEvent::StateChanged { user } => hub.value_is_due(Value::State(user), Recipients::All),
            BrokerEvent::Raw { user, data } => hub.raw(&user, &data),
        }
    }
}
