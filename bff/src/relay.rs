use std::sync::Arc;

use carillon_broker::{Broker, Event, FanOut, Subscriptions};
use carillon_service::Latch;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::revocations::Revocations;
use crate::sealing::Sealing;

/// Hands what the broker reports to the hub, wakes the dispatcher, and keeps readiness up to date: a
/// replica that does not hear the fan-out must not be given readers.
pub(crate) struct Relay {
    pub(crate) broker: Broker,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) hub: Arc<Hub>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) heard: Latch,
    pub(crate) fan_out: FanOut,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) sealing: Arc<Sealing>,
}

impl Relay {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { broker, subscriptions, hub, wake, heard, fan_out, revocations, sealing } = self;
        let listening = broker.listen(&subscriptions, |event| {
            match event {
                Event::Up => {
                    heard.set(true);
                    sealing.outdated.notify_one();
                }
                Event::Down => heard.set(false),
                _ => {}
            }
            if matches!(event, Event::Up | Event::Wake) {
                wake.notify_one();
            }
            revocations.hear(&event, &hub);
            hub.hear_programs(&event);
            // Readers of their own replica hear the dispatcher alone, and need no connection to stay live.
            if fan_out == FanOut::All {
                hub.hear(&event);
            }
        });
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = listening => anyhow::bail!("the fan-out listener ended"),
        }
    }
}
