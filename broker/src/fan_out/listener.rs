use carillon_protocol::Audience;
use carillon_protocol::limits::PRESENCE_TOPIC;
use tokio::time::Instant;

use super::codec::decode_fanout;
use super::subscriptions::Difference;
use super::{BrokerEvent, Echoed, FanOut, Subscriptions};
use crate::engine::subscriber::{Message, Subscriber};
use crate::limits::{ECHO_EVERY, ECHO_TIMEOUT, PING_EVERY, SUBSCRIBE_MAX_AUDIENCES};
use crate::names::Channel;
use crate::revocations::Control;
use crate::state::{channel_names, published_on};
use crate::{Broker, BrokerError};

/// One connection of a replica for fan-out. It notices by signs of life that it receives nothing any more.
pub(super) struct Listener<'a> {
    broker: &'a Broker,
    subscriptions: &'a Subscriptions,
    fan_out: FanOut,
    subscriber: Subscriber,
    /// The channel of its own signs of life.
    echo: String,
    /// How many signs of life were published or begun.
    begun: u64,
    /// The number of the last sign of life that came back.
    received: u64,
    /// The first sign of life that was published and has not come back, and when its publication was confirmed.
    missing: Option<(u64, Instant)>,
}

impl<'a> Listener<'a> {
    pub(super) async fn connect(
        broker: &'a Broker,
        subscriptions: &'a Subscriptions,
        fan_out: FanOut,
    ) -> Result<Self, BrokerError> {
        let mut subscriber = Subscriber::connect(broker.0.endpoint()).await?;
        let names = broker.0.names();
        let echo = names.echo(&format!("{:016x}", fastrand::u64(..)));
        subscriber.subscribe(&[names.channel(), names.control(), echo.clone()]).await?;
        Ok(Self { broker, subscriptions, fan_out, subscriber, echo, begun: 0, received: 0, missing: None })
    }

    /// Serves the connection until it fails, and returns why it did.
    pub(super) async fn run(&mut self, on: &mut impl FnMut(BrokerEvent)) -> BrokerError {
        on(BrokerEvent::Up);
        if let Err(error) = self.follow(self.subscriptions.all(), on).await {
            return error;
        }
        let (broker, fan_out) = (self.broker, self.fan_out);
        let every = |period| {
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            interval
        };
        let (mut ping, mut echo) = (every(PING_EVERY), every(ECHO_EVERY));
        // The answer to a sign of life is awaited beside everything else, so that a stalled server delays no message.
        let mut echoing = None;
        loop {
            let deaf_at = self.missing.map(|(_, since)| since + ECHO_TIMEOUT);
            let done = tokio::select! {
                message = self.subscriber.next() => message.map(|message| self.take(&message, on)),
                () = self.subscriptions.changed() => self.follow(self.subscriptions.difference(), on).await,
                _ = ping.tick() => self.subscriber.ping().await,
                _ = echo.tick(), if echoing.is_none() => {
                    self.begun += 1;
                    let (channel, number) = (self.echo.clone(), self.begun);
                    let publishing = async move { broker.publish_echo(&channel, number, fan_out).await };
                    echoing = Some(Box::pin(publishing));
                    Ok(())
                }
                answer = async { echoing.as_mut().expect("a sign of life is awaited").await }, if echoing.is_some() => {
                    echoing = None;
                    self.published(answer, on);
                    Ok(())
                }
                () = async { tokio::time::sleep_until(deaf_at.expect("a sign of life is missing")).await }, if deaf_at.is_some() => {
                    Err(BrokerError::Away("it does not receive what is published on the server that takes commands".to_owned()))
                }
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn published(&mut self, answer: Result<Echoed, BrokerError>, on: &mut impl FnMut(BrokerEvent)) {
        match answer {
            Ok(Echoed::Published(writes)) => {
                if self.received < self.begun {
                    self.missing.get_or_insert((self.begun, Instant::now()));
                }
                on(BrokerEvent::Writes(writes));
            }
            Ok(Echoed::OtherMode(mode)) => on(BrokerEvent::OtherMode(mode)),
            // It may have been published or not, so nothing follows if it does not come back.
            Err(error) => on(BrokerEvent::Writes(Err(error.to_string()))),
        }
    }

    fn take(&mut self, message: &Message, on: &mut impl FnMut(BrokerEvent)) {
        let Message { channel, payload } = message;
        match self.broker.0.names().channel_of(channel) {
            Channel::Wake => on(BrokerEvent::Wake),
            Channel::OfUser(name) => {
                let listens = |user: &str| self.subscriptions.has(&Audience::User(user.to_owned()));
                published_on(&name, payload, listens).into_iter().for_each(on);
            }
            Channel::Fanout(audience) => match decode_fanout(audience.clone(), payload) {
                Some(fanout) => on(BrokerEvent::Fanout(fanout)),
                None => {
                    tracing::warn!(
                        channel,
                        "skipped a fan-out message of another format; its readers read history instead"
                    );
                    on(BrokerEvent::Undecodable(audience));
                }
            },
            Channel::Presence(user) => on(BrokerEvent::PresenceChanged { user }),
            Channel::Echo => {
                let words = std::str::from_utf8(payload).ok().and_then(|text| text.split_once(' '));
                let read = words.and_then(|(number, tail)| Some((number.parse().ok()?, tail.parse().ok()?)));
                if let Some((number, tail)) = read {
                    self.received = number;
                    self.missing = self.missing.filter(|(missing, _)| *missing > number);
                    on(BrokerEvent::Echo { tail });
                }
            }
            Channel::Control => match Control::read(payload) {
                Some(Control::Revoked(revocation)) => on(BrokerEvent::Revoked(revocation)),
                Some(Control::Restored) => on(BrokerEvent::RevocationsRestored),
                None => tracing::warn!(channel, "skipped a control message of an unknown kind"),
            },
            Channel::Unknown => tracing::warn!(channel, "skipped a message on an unknown channel"),
        }
    }

    /// Subscribes to the audiences that were added, and unsubscribes from those that were removed.
    async fn follow(
        &mut self,
        difference: Difference,
        on: &mut impl FnMut(BrokerEvent),
    ) -> Result<(), BrokerError> {
        let Difference { added, removed } = difference;
        for audiences in removed.chunks(SUBSCRIBE_MAX_AUDIENCES) {
            let channels: Vec<_> = audiences.iter().flat_map(|gone| self.left_by(gone)).collect();
            self.subscriber.unsubscribe(&channels).await?;
        }
        for audiences in added.chunks(SUBSCRIBE_MAX_AUDIENCES) {
            let channels: Vec<_> = audiences.iter().flat_map(|audience| self.channels_of(audience)).collect();
            self.subscriber.subscribe(&channels).await?;
            // The tails are read after the confirmation: entries after them will be received.
            let (tail, tails) = self.broker.tails(audiences).await?;
            on(BrokerEvent::Subscribed { audiences: audiences.iter().cloned().zip(tails).collect(), tail });
        }
        Ok(())
    }

    fn channels_of(&self, audience: &Audience) -> Vec<String> {
        let names = self.broker.0.names();
        match audience {
            Audience::User(user) => {
                [names.fanout(audience)].into_iter().chain(channel_names(names, user)).collect()
            }
            // The entries that are pushed to the topic itself, and the presence of the user whose name it has.
            Audience::Topic(topic) => match topic.strip_prefix(PRESENCE_TOPIC) {
                Some(user) => vec![names.fanout(audience), names.presence(user)],
                None => vec![names.fanout(audience)],
            },
            _ => vec![names.fanout(audience)],
        }
    }

    /// The channels of a removed audience that belong to no other wanted audience. Only two users share a channel: one whose
    /// name is the other's and `:state`.
    fn left_by(&self, gone: &Audience) -> Vec<String> {
        let mut channels = self.channels_of(gone);
        if let Audience::User(user) = gone {
            let shared = [Some(format!("{user}:state")), user.strip_suffix(":state").map(str::to_owned)];
            let others = shared.into_iter().flatten().map(Audience::User);
            for other in others.filter(|other| self.subscriptions.has(other)) {
                let others = self.channels_of(&other);
                channels.retain(|channel| !others.contains(channel));
            }
        }
        channels
    }
}
