//! What replicas publish to each other: the entries that one of them has claimed, and what a replica receives of them.

mod codec;
mod listener;
mod subscriptions;

use std::sync::LazyLock;
use std::time::Duration;

use carillon_protocol::{Audience, Backoff, Cursor, Position};
use redis::Script;
use strum::{EnumString, IntoStaticStr};
use tokio::time::Instant;

use crate::engine::{optional_position, position, sequence_script};
use crate::limits::{FANOUT_MODE_KEEP, RECONNECT_CAP_MS, STABLE_AFTER};
use crate::{Broker, BrokerError, Revocation};
use listener::Listener;
pub use subscriptions::Subscriptions;

/// Which readers receive the entries that a replica claims, and the word for it in options and in the scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum FanOut {
    /// The readers of every replica, with history and resume.
    #[default]
    All,
    /// The readers of the replica that claimed the entry, live only: it is neither stored nor published.
    Own,
}

/// The kind of an entry, and its word in history and fan-out, which is also the type of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum EntryKind {
    /// An entry from the list, in its producer's bytes. All other kinds are JSON objects that this service wrote, with the
    /// fields of the frame of that name except `type` and `cursor`.
    #[default]
    Notification,
    /// The new status of a message that the reader sent.
    Status,
    /// The new read position of the reader, from any device.
    Read,
    /// A user came or left.
    Presence,
    /// A kind of a later version, which is skipped.
    Unknown,
}

impl EntryKind {
    /// The kind of a word.
    pub fn of(word: &str) -> Self {
        word.parse().unwrap_or(Self::Unknown)
    }
}

/// An entry as it was appended, in its own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its position in the whole sequence.
    pub position: Position,
    /// The position of the entry before it in the same audience; zero where there is none.
    pub prev: Position,
    /// Its kind.
    pub kind: EntryKind,
    /// The bytes that the producer pushed, or the fields of a frame: see [`EntryKind`].
    pub raw: Vec<u8>,
}

/// Entries of one audience, in order, as they are published to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// The audience that they are published to: see [`channel_audience`].
    pub audience: Audience,
    /// The epoch of their positions.
    pub epoch: String,
    /// The replica that claimed them.
    pub claimed_by: String,
    /// At least one.
    pub entries: Vec<Stored>,
}

/// The audience that a listener subscribes to for `audience`. For a connection it is the run that holds the connection: its
/// name less the last dash and what follows. So a replica listens for all its connections at once, and an entry's own `to`
/// names the one that it is for. Any other audience is returned as it is.
pub fn channel_audience(audience: &Audience) -> Audience {
    match audience {
        Audience::Connection(name) => match name.rsplit_once('-') {
            Some((run, _)) if !run.is_empty() => Audience::Connection(run.to_owned()),
            _ => audience.clone(),
        },
        _ => audience.clone(),
    }
}

/// What a listener receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerEvent {
    /// The listener is connected, or connected again; the subscriptions follow. Messages before this are lost.
    Up,
    /// The connection is lost: no event follows until the next [`BrokerEvent::Up`].
    Down,
    /// From `tail` on, everything for these audiences will be received.
    Subscribed {
        /// The audiences, now confirmed, each with the last position of its history at that moment; `None` where it has
        /// none.
        audiences: Vec<(Audience, Option<Position>)>,
        /// The last position given out at a moment after the confirmation.
        tail: Cursor,
    },
    /// A sign of life of this listener came back: everything up to `tail` was received.
    Echo {
        /// The last position given out.
        tail: Cursor,
    },
    /// Whether the server takes writes; if not, why, in its words.
    Writes(Result<(), String>),
    /// Other replicas run now in another mode than this one: `all` or `own`.
    OtherMode(String),
    /// A fan-out message to an audience in a format that this version cannot read.
    Undecodable(Audience),
    /// The list may hold entries.
    Wake,
    /// Entries for an audience.
    Fanout(Fanout),
    /// Tokens were revoked.
    Revoked(Revocation),
    /// Revocations were restored that Redis had lost: the replica has to read them again.
    RevocationsRestored,
    /// A user came or left whose presence a reader of this replica follows.
    PresenceChanged {
        /// The user.
        user: String,
    },
    /// A program published these bytes to a user who is listened for. They are not stored.
    Raw {
        /// The user.
        user: String,
        /// Any bytes.
        data: Vec<u8>,
    },
    /// The state of a user who is listened for may have changed.
    StateChanged {
        /// The user.
        user: String,
    },
}

/// The result of publishing a sign of life.
enum Echoed {
    /// It was published; whether the server takes writes.
    Published(Result<(), String>),
    /// Other replicas run in another mode.
    OtherMode(String),
}

static ECHO: LazyLock<Script> = LazyLock::new(|| sequence_script(&[include_str!("fan_out/echo.lua")]));
static TAILS: LazyLock<Script> = LazyLock::new(|| sequence_script(&[include_str!("fan_out/tails.lua")]));

impl Broker {
    /// Receives wake-ups and fan-out on a connection of its own, and passes them to `on`, which must not block. It connects
    /// again whenever the connection ends, is silent after a ping, or does not receive what is published on the server that
    /// takes commands. Messages of the time between are lost, which [`BrokerEvent::Down`] and [`BrokerEvent::Up`] report.
    /// It ends only by being dropped. `fan_out` is the mode that all replicas of a deployment have in common.
    pub async fn listen(
        &self,
        subscriptions: &Subscriptions,
        fan_out: FanOut,
        mut on: impl FnMut(BrokerEvent),
    ) {
        let mut backoff = Backoff::new(100, RECONNECT_CAP_MS);
        loop {
            let mut up = false;
            let began = Instant::now();
            let error = match Listener::connect(self, subscriptions, fan_out).await {
                Ok(mut listener) => {
                    let mut on = |event: BrokerEvent| {
                        up |= event == BrokerEvent::Up;
                        on(event);
                    };
                    listener.run(&mut on).await
                }
                Err(error) => error,
            };
            if up {
                on(BrokerEvent::Down);
            }
            // A connection that fails as soon as it is up, as on a server that is loading, does not count as a success.
            if up && began.elapsed() >= STABLE_AFTER {
                backoff.reset();
            }
            let wait_ms = backoff.next_ms(fastrand::f64());
            if up || backoff.attempt() == 1 {
                tracing::warn!(retry.ms = wait_ms, %error, "the fan-out connection to Redis is down");
            }
            self.0.pause(Duration::from_millis(wait_ms)).await;
        }
    }

    /// Publishes a sign of life on the channel of a listener.
    async fn publish_echo(&self, channel: &str, number: u64, fan_out: FanOut) -> Result<Echoed, BrokerError> {
        let mut call = ECHO.key(self.0.names().sequence());
        call.key(self.0.names().fanout_mode());
        call.arg(self.0.call_time()).arg(channel).arg(fan_out.into_str());
        call.arg(FANOUT_MODE_KEEP.as_secs() * 1_000).arg(number);
        let (_, _, refused, other): (String, String, String, String) = self.0.eval(&call).await?;
        Ok(match (refused.is_empty(), other.is_empty()) {
            (_, false) => Echoed::OtherMode(other),
            (true, true) => Echoed::Published(Ok(())),
            (false, true) => Echoed::Published(Err(refused)),
        })
    }

    /// Returns the end of the sequence, and the last position of each of these histories.
    async fn tails(&self, audiences: &[Audience]) -> Result<(Cursor, Vec<Option<Position>>), BrokerError> {
        let mut call = TAILS.key(self.0.names().sequence());
        for audience in audiences {
            call.key(self.0.names().history(audience));
        }
        call.arg(self.0.call_time());
        let (epoch, last, tails): (String, String, Vec<String>) = self.0.eval_read(&call).await?;
        let tails = tails.iter().map(|tail| optional_position(tail)).collect::<Result<_, _>>()?;
        Ok((Cursor { epoch, position: position(last.as_bytes())? }, tails))
    }
}
