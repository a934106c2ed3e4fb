use futures_util::StreamExt;
use redis::Client;
use redis::aio::{PubSubSink, PubSubStream};

use super::connection::{Endpoint, within};
#[cfg(feature = "memory")]
use super::memory::Subscription;
use crate::BrokerError;
use crate::limits::{CONNECT_TIMEOUT, PING_TIMEOUT, RESPONSE_TIMEOUT};

/// A connection for subscriptions: to a Redis server, or to the one inside this process.
pub(crate) enum Subscriber {
    Redis(PubSubSink, PubSubStream),
    #[cfg(feature = "memory")]
    Memory(Subscription),
}

/// A message that was published on a channel.
pub(crate) struct Message {
    pub(crate) channel: String,
    pub(crate) payload: Vec<u8>,
}

impl Subscriber {
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Self, BrokerError> {
        match endpoint {
            Endpoint::Redis(client) => Self::to(client).await,
            #[cfg(feature = "memory")]
            Endpoint::Memory(server) => server.subscriber().await.map(Self::Memory).map_err(Into::into),
        }
    }

    async fn to(client: &Client) -> Result<Self, BrokerError> {
        let pubsub = within(CONNECT_TIMEOUT, client.get_async_pubsub()).await?;
        let (sink, stream) = pubsub.split();
        Ok(Self::Redis(sink, stream))
    }

    pub(crate) async fn subscribe(&mut self, channels: &[String]) -> Result<(), BrokerError> {
        match self {
            Self::Redis(sink, _) => within(RESPONSE_TIMEOUT, sink.subscribe(channels)).await,
            #[cfg(feature = "memory")]
            Self::Memory(subscription) => subscription.confirm(|one| one.subscribe(channels)).await,
        }
    }

    pub(crate) async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BrokerError> {
        match self {
            Self::Redis(sink, _) => within(RESPONSE_TIMEOUT, sink.unsubscribe(channels)).await,
            #[cfg(feature = "memory")]
            Self::Memory(subscription) => subscription.confirm(|one| one.unsubscribe(channels)).await,
        }
    }

    /// Verifies that the peer is alive: one that has vanished causes no error by itself.
    pub(crate) async fn ping(&mut self) -> Result<(), BrokerError> {
        match self {
            Self::Redis(sink, _) => within(PING_TIMEOUT, sink.ping::<redis::Value>()).await.map(|_| ()),
            #[cfg(feature = "memory")]
            Self::Memory(subscription) => subscription.confirm(Subscription::is_alive).await,
        }
    }

    /// Waits for the next message. Dropping the call loses no message.
    pub(crate) async fn next(&mut self) -> Result<Message, BrokerError> {
        let message = match self {
            Self::Redis(_, stream) => stream.next().await.map(|message| {
                let channel = message.get_channel_name().to_owned();
                Message { channel, payload: message.get_payload_bytes().to_vec() }
            }),
            #[cfg(feature = "memory")]
            Self::Memory(subscription) => {
                subscription.next().await.map(|(channel, payload)| Message { channel, payload })
            }
        };
        message.ok_or_else(closed)
    }
}

fn closed() -> BrokerError {
    BrokerError::Away("the connection was closed".to_owned())
}
