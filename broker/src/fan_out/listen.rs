use std::sync::LazyLock;
use std::time::Duration;

use carillon_protocol::limits::PRESENCE_TOPIC;
use carillon_protocol::{Audience, Backoff, Cursor};
use redis::Script;
use tokio::time::Instant;

use super::codec::decode_fanout;
use super::event::{Difference, Event, Subscriptions};
use crate::engine::subscriber::{Message, Subscriber};
use crate::engine::{Engine, sequence_script};
use crate::history::{known, position};
use crate::limits::{
    ECHO_EVERY, ECHO_TIMEOUT, FANOUT_MODE_KEEP, PING_EVERY, RECONNECT_CAP_MS, STABLE_AFTER,
    SUBSCRIBE_MAX_AUDIENCES,
};
use crate::names::Channel;
use crate::revocations::Control;
use crate::state::{channel_names, published_on};
use crate::{Broker, BrokerError, FanOut};

impl Broker {
    /// Receives wake-ups and fan-out on a connection of its own, for ever, and reports them to `on`, which must not block.
    /// It connects again whenever the connection ends, is silent after a ping, or does not receive what is written to the
    /// server that takes commands. Messages of the time between are gone, which [`Event::Down`] and [`Event::Up`] report.
    /// Ends only by being dropped. `fan_out` is the mode that all replicas of a deployment have in common.
    pub async fn listen(&self, subscriptions: &Subscriptions, fan_out: FanOut, mut on: impl FnMut(Event)) {
        let mut backoff = Backoff::new(100, RECONNECT_CAP_MS);
        loop {
            let mut up = false;
            let began = Instant::now();
            let error = match Listener::connect(&self.0, subscriptions, fan_out).await {
                Ok(mut listener) => {
                    let mut on = |event: Event| {
                        up |= event == Event::Up;
                        on(event);
                    };
                    listener.run(&mut on).await
                }
                Err(error) => error,
            };
            if up {
                on(Event::Down);
            }
            // One that fails as soon as it is up, as on a server that is loading, does not count as a success.
            if up && began.elapsed() >= STABLE_AFTER {
                backoff.reset();
            }
            let wait_ms = backoff.next_ms(fastrand::f64());
            if up || backoff.attempt() == 1 {
                tracing::warn!(retry.ms = wait_ms, %error, "fan-out connection to Redis is down");
            }
            self.0.pause(Duration::from_millis(wait_ms)).await;
        }
    }
}

/// One connection, until it fails.
struct Listener<'a> {
    engine: &'a Engine,
    subscriptions: &'a Subscriptions,
    fan_out: FanOut,
    subscriber: Subscriber,
    /// The channel of its signs of life: nobody else's.
    echo: String,
    /// How many signs of life were begun, and the number of the last that came back.
    begun: u64,
    received: u64,
    /// The first sign of life that was published and has not come back, and since when that is known.
    missing: Option<(u64, Instant)>,
}

static ECHO: LazyLock<Script> = LazyLock::new(|| sequence_script(&[include_str!("echo.lua")]));
static TAILS: LazyLock<Script> = LazyLock::new(|| sequence_script(&[include_str!("tails.lua")]));

impl<'a> Listener<'a> {
    async fn connect(
        engine: &'a Engine,
        subscriptions: &'a Subscriptions,
        fan_out: FanOut,
    ) -> Result<Self, BrokerError> {
        let mut subscriber = Subscriber::connect(engine.place()).await?;
        let names = engine.names();
        let echo = names.echo(&format!("{:016x}", fastrand::u64(..)));
        subscriber.subscribe(&[names.channel(), names.control(), echo.clone()]).await?;
        Ok(Self { engine, subscriptions, fan_out, subscriber, echo, begun: 0, received: 0, missing: None })
    }

    /// Serves the connection until it fails, and returns why it did.
    async fn run(&mut self, on: &mut impl FnMut(Event)) -> BrokerError {
        on(Event::Up);
        if let Err(error) = self.follow(self.subscriptions.all(), on).await {
            return error;
        }
        let (engine, fan_out) = (self.engine, self.fan_out);
        let every = |period| {
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            interval
        };
        let (mut ping, mut echo) = (every(PING_EVERY), every(ECHO_EVERY));
        // A sign of life waits for its answer beside everything else: a stalled server holds up no message.
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
                    let publishing = async move { engine.publish_echo(&channel, number, fan_out).await };
                    echoing = Some(Box::pin(publishing));
                    Ok(())
                }
                answer = async { echoing.as_mut().expect("it is awaited only where there is one").await }, if echoing.is_some() => {
                    echoing = None;
                    self.published(answer, on);
                    Ok(())
                }
                () = async { tokio::time::sleep_until(deaf_at.expect("likewise")).await }, if deaf_at.is_some() => {
                    Err(BrokerError::Away("it does not receive what is published on the server that takes commands".to_owned()))
                }
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn published(&mut self, answer: Result<Echoed, BrokerError>, on: &mut impl FnMut(Event)) {
        match answer {
            Ok(Echoed::Published(writes)) => {
                if self.received < self.begun {
                    self.missing.get_or_insert((self.begun, Instant::now()));
                }
                on(Event::Writes(writes));
            }
            Ok(Echoed::OtherMode(mode)) => on(Event::OtherMode(mode)),
            // It may have been published or not: nothing follows from its absence.
            Err(error) => on(Event::Writes(Err(error.to_string()))),
        }
    }

    fn take(&mut self, message: &Message, on: &mut impl FnMut(Event)) {
        let Message { channel, payload } = message;
        match self.engine.names().channel_of(channel) {
            Channel::Wake => on(Event::Wake),
            Channel::OfUser(name) => {
                let listens = |user: &str| self.subscriptions.has(&Audience::User(user.to_owned()));
                published_on(&name, payload, listens).into_iter().for_each(on);
            }
            Channel::Fanout(audience) => match decode_fanout(audience.clone(), payload) {
                Some(fanout) => on(Event::Fanout(fanout)),
                None => {
                    tracing::warn!(
                        channel,
                        "a fan-out message of another format; its readers turn to history"
                    );
                    on(Event::Undecodable(audience));
                }
            },
            Channel::Presence(user) => on(Event::PresenceChanged { user }),
            Channel::Echo => {
                let words = std::str::from_utf8(payload).ok().and_then(|text| text.split_once(' '));
                let read = words.and_then(|(number, tail)| Some((number.parse().ok()?, tail.parse().ok()?)));
                if let Some((number, tail)) = read {
                    self.received = number;
                    self.missing = self.missing.filter(|(missing, _)| *missing > number);
                    on(Event::Echo { tail });
                }
            }
            Channel::Control => match Control::read(payload) {
                Some(Control::Revoked(revocation)) => on(Event::Revoked(revocation)),
                Some(Control::Restored) => on(Event::RevocationsRestored),
                None => tracing::warn!(channel, "a control message of an unknown kind was passed over"),
            },
            Channel::Unknown => tracing::warn!(channel, "a message on a channel of no kind was passed over"),
        }
    }

    /// Brings the subscriptions of the connection into line with what is wanted.
    async fn follow(
        &mut self,
        difference: Difference,
        on: &mut impl FnMut(Event),
    ) -> Result<(), BrokerError> {
        let Difference { added, removed } = difference;
        for audiences in removed.chunks(SUBSCRIBE_MAX_AUDIENCES) {
            let channels: Vec<_> = audiences.iter().flat_map(|gone| self.left_by(gone)).collect();
            self.subscriber.unsubscribe(&channels).await?;
        }
        for audiences in added.chunks(SUBSCRIBE_MAX_AUDIENCES) {
            let channels: Vec<_> = audiences.iter().flat_map(|audience| self.channels_of(audience)).collect();
            self.subscriber.subscribe(&channels).await?;
            // Asked after the confirmation: whatever comes later than these tails will be received.
            let (tail, tails) = self.engine.tails(audiences).await?;
            on(Event::Subscribed { audiences: audiences.iter().cloned().zip(tails).collect(), tail });
        }
        Ok(())
    }

    fn channels_of(&self, audience: &Audience) -> Vec<String> {
        let names = self.engine.names();
        match audience {
            Audience::User(user) => {
                [names.fanout(audience)].into_iter().chain(channel_names(names, user)).collect()
            }
            // What is pushed to the topic itself, and the comings and goings that it is named for.
            Audience::Topic(topic) => match topic.strip_prefix(PRESENCE_TOPIC) {
                Some(user) => vec![names.fanout(audience), names.presence(user)],
                None => vec![names.fanout(audience)],
            },
            _ => vec![names.fanout(audience)],
        }
    }

    /// The channels of an audience that nobody else who is wanted has too. Only users share any, with one whose
    /// name is theirs and `:state`.
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

/// What came of a sign of life.
enum Echoed {
    /// It is on its way back; whether the server takes writes.
    Published(Result<(), String>),
    /// Other replicas run in another mode.
    OtherMode(String),
}

impl Engine {
    async fn publish_echo(&self, channel: &str, number: u64, fan_out: FanOut) -> Result<Echoed, BrokerError> {
        let mut call = ECHO.key(self.names().sequence());
        call.key(self.names().fanout_mode());
        call.arg(self.call_time()).arg(channel).arg(fan_out.as_str()).arg(FANOUT_MODE_KEEP.as_secs() * 1_000);
        call.arg(number);
        let (_, _, refused, other): (String, String, String, String) = self.eval(&call).await?;
        Ok(match (refused.is_empty(), other.is_empty()) {
            (_, false) => Echoed::OtherMode(other),
            (true, true) => Echoed::Published(Ok(())),
            (false, true) => Echoed::Published(Err(refused)),
        })
    }

    /// The end of the sequence, and the last position of each of these histories.
    async fn tails(
        &self,
        audiences: &[Audience],
    ) -> Result<(Cursor, Vec<Option<carillon_protocol::Position>>), BrokerError> {
        let mut call = TAILS.key(self.names().sequence());
        for audience in audiences {
            call.key(self.names().history(audience));
        }
        call.arg(self.call_time());
        let (epoch, last, tails): (String, String, Vec<String>) = self.eval_read(&call).await?;
        let tails = tails.iter().map(|tail| known(tail)).collect::<Result<_, _>>()?;
        Ok((Cursor { epoch, position: position(last.as_bytes())? }, tails))
    }
}
