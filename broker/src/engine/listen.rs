use std::time::{Duration, Instant};

use carillon_protocol::{Audience, Backoff};

use super::Engine;
use super::subscriber::{Message, Subscriber};
use crate::event::{Generations, unconfirmed};
use crate::limits::{PING_EVERY, RECONNECT_CAP_MS, STABLE_AFTER, SUBSCRIBE_MAX_AUDIENCES};
use crate::state::{self, heard_on};
use crate::wire::decode_fanout;
use crate::{BrokerError, Event, Revocation, Subscriptions};

/// Hears wake-ups and fan-out on a connection of its own, for ever: it connects again whenever the
/// connection ends, or is silent when asked for a sign of life. Messages of the time between are
/// gone, which [`Event::Down`] and [`Event::Up`] tell.
pub(crate) async fn listen(engine: &Engine, subscriptions: &Subscriptions, mut on: impl FnMut(Event)) {
    let mut backoff = Backoff::new(100, RECONNECT_CAP_MS);
    loop {
        let mut up = false;
        let began = Instant::now();
        let error = match connect(engine).await {
            Ok(connection) => {
                let mut on = |event: Event| {
                    up |= event == Event::Up;
                    on(event);
                };
                hear(engine, connection, subscriptions, &mut on).await
            }
            Err(error) => error,
        };
        if up {
            on(Event::Down);
        }
        // One that fails as soon as it is up, as on a server that is loading, is no success.
        if up && began.elapsed() >= STABLE_AFTER {
            backoff.reset();
        }
        let wait_ms = backoff.next_ms(fastrand::f64());
        if up || backoff.attempt() == 1 {
            tracing::warn!(retry.ms = wait_ms, %error, "fan-out connection to Redis is down");
        }
        engine.pause(Duration::from_millis(wait_ms)).await;
    }
}

async fn connect(engine: &Engine) -> Result<Subscriber, BrokerError> {
    let mut subscriber = Subscriber::connect(engine.place()).await?;
    let names = engine.names();
    subscriber.subscribe(&[names.channel.clone(), names.control()]).await?;
    Ok(subscriber)
}

/// Serves one connection until it fails, and says why it did.
async fn hear(
    engine: &Engine,
    mut subscriber: Subscriber,
    subscriptions: &Subscriptions,
    on: &mut impl FnMut(Event),
) -> BrokerError {
    on(Event::Up);
    let mut subscribed = Generations::new();
    if let Err(error) = follow(engine, &mut subscriber, subscriptions, &mut subscribed, on).await {
        return error;
    }
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            message = subscriber.next() => message.map(|message| hear_message(engine, &message, &subscribed, on)),
            () = subscriptions.changed() => follow(engine, &mut subscriber, subscriptions, &mut subscribed, on).await,
            _ = ping.tick() => subscriber.ping().await,
        };
        if let Err(error) = done {
            return error;
        }
    }
}

fn hear_message(engine: &Engine, message: &Message, subscribed: &Generations, on: &mut impl FnMut(Event)) {
    let Message { channel, payload } = message;
    let names = engine.names();
    if *channel == names.channel {
        on(Event::Wake);
    } else if let Some(name) = channel.strip_prefix(&names.users) {
        heard_on(name, payload, subscribed).for_each(on);
    } else if let Some(audience) = names.audience_of(channel) {
        match decode_fanout(audience, payload) {
            Some(fanout) => on(Event::Fanout(fanout)),
            None => tracing::warn!(channel, "a message that is no fan-out of ours was passed over"),
        }
    } else if let Some(revocation) = Revocation::heard(payload) {
        on(Event::Revoked(revocation));
    } else {
        tracing::warn!(channel, "a control message of an unknown kind was passed over");
    }
}

/// Brings the subscriptions of the connection into line with what is wanted.
async fn follow(
    engine: &Engine,
    subscriber: &mut Subscriber,
    subscriptions: &Subscriptions,
    subscribed: &mut Generations,
    on: &mut impl FnMut(Event),
) -> Result<(), BrokerError> {
    let wanted = subscriptions.wanted();
    let gone: Vec<_> = subscribed.keys().filter(|audience| !wanted.contains_key(audience)).cloned().collect();
    for audiences in gone.chunks(SUBSCRIBE_MAX_AUDIENCES) {
        let channels: Vec<_> = audiences.iter().flat_map(|gone| left_by(engine, gone, &wanted)).collect();
        subscriber.unsubscribe(&channels).await?;
    }
    for audiences in unconfirmed(&wanted, subscribed).chunks(SUBSCRIBE_MAX_AUDIENCES) {
        subscriber.subscribe(&channels(engine, audiences)).await?;
        // Asked after the confirmation: whatever comes later than this tail will be heard.
        let tail = engine.tail().await?;
        on(Event::Subscribed { audiences: audiences.to_vec(), tail });
    }
    *subscribed = wanted;
    Ok(())
}

fn channels(engine: &Engine, audiences: &[Audience]) -> Vec<String> {
    audiences.iter().flat_map(|audience| channels_of(engine, audience)).collect()
}

fn channels_of(engine: &Engine, audience: &Audience) -> Vec<String> {
    let names = engine.names();
    let mut channels = vec![names.fanout(audience)];
    if let Audience::User(user) = audience {
        channels.extend(state::channels_of(user).map(|name| names.raw(&name)));
    }
    channels
}

/// The channels of an audience that nobody else who is wanted has too. Only users share any, with one whose
/// name is theirs and `:state`.
fn left_by(engine: &Engine, gone: &Audience, wanted: &Generations) -> Vec<String> {
    let mut channels = channels_of(engine, gone);
    if let Audience::User(user) = gone {
        let shared = [Some(format!("{user}:state")), user.strip_suffix(":state").map(str::to_owned)];
        let others = shared.into_iter().flatten().map(Audience::User);
        for other in others.filter(|other| wanted.contains_key(other)) {
            let others = channels_of(engine, &other);
            channels.retain(|channel| !others.contains(channel));
        }
    }
    channels
}
