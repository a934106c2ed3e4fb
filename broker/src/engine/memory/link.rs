use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::RedisResult;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Server, away};
use crate::limits::RESPONSE_TIMEOUT;

/// Messages of one connection arrive in order, at least this far apart: timers of a simulation have milliseconds.
const APART: Duration = Duration::from_millis(1);

/// How long a message is under way; it is called for each.
pub type Delay = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The network between one broker and the server in this process: it delays, keeps the order, and may fail.
#[derive(Clone)]
pub struct Link {
    server: Server,
    wire: Arc<Wire>,
}

/// What the connections of one broker go over.
pub(super) struct Wire {
    delay: Delay,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts cuts: what is under way during one is lost.
    cuts: u64,
    refuses: bool,
    hangs: bool,
    /// When the last message of each direction arrives.
    commands: Option<Instant>,
    replies: Option<Instant>,
    published: Option<Instant>,
    lose_reply: bool,
}

impl Link {
    pub(super) fn new(server: &Server, delay: Delay) -> Self {
        let wire = Arc::new(Wire { delay, state: Mutex::default() });
        Self { server: server.over(&wire), wire }
    }

    pub(super) fn server(&self) -> Server {
        self.server.clone()
    }

    /// Whether both are the network of the same broker.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.wire, &other.wire)
    }

    /// Ends all connections; what is under way is lost, and new ones can be made.
    pub fn cut(&self) {
        self.wire.state.lock().cuts += 1;
        self.server.data().subscribers.cut_wire(&self.wire);
    }

    /// Ends all connections and refuses new ones, until it is set to `false`.
    pub fn refuse(&self, refuses: bool) {
        self.wire.state.lock().refuses = refuses;
        if refuses {
            self.cut();
        }
    }

    /// Lets every command, and what is published, disappear on the way without an error, until it is set to `false`; then the
    /// connections end.
    pub fn hang(&self, hangs: bool) {
        self.wire.state.lock().hangs = hangs;
        if !hangs {
            self.cut();
        }
    }

    /// The next command is carried out, its reply is lost and the connection ends.
    pub fn lose_next_reply(&self) {
        self.wire.state.lock().lose_reply = true;
    }
}

impl Wire {
    /// Carries a command to the server and its reply back.
    pub(super) async fn exchange<T>(&self, execute: impl FnOnce() -> RedisResult<T>) -> RedisResult<T> {
        let cuts = self.usable()?;
        self.arrive(|state| &mut state.commands).await;
        self.still(cuts).await?;
        let reply = execute();
        let is_lost = std::mem::take(&mut self.state.lock().lose_reply);
        self.arrive(|state| &mut state.replies).await;
        self.still(cuts).await?;
        if is_lost { Err(away("the command was carried out, and its reply was lost")) } else { reply }
    }

    /// When a message that is published now arrives; `None` for never.
    pub(super) fn publish(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        if state.hangs {
            return None;
        }
        let at = next(&mut state.published, (self.delay)());
        Some(at)
    }

    fn usable(&self) -> RedisResult<u64> {
        let state = self.state.lock();
        if state.refuses { Err(away("the network refuses")) } else { Ok(state.cuts) }
    }

    /// An error when the connections were cut since. Where the network swallows messages, that is found out by waiting.
    async fn still(&self, cuts: u64) -> RedisResult<()> {
        if self.state.lock().hangs {
            sleep(RESPONSE_TIMEOUT).await;
            return Err(away("no answer"));
        }
        if self.usable()? == cuts { Ok(()) } else { Err(away("the connection was cut")) }
    }

    async fn arrive(&self, last: impl FnOnce(&mut State) -> &mut Option<Instant>) {
        let delay = (self.delay)();
        let at = next(last(&mut self.state.lock()), delay);
        sleep_until(at).await;
    }
}

fn next(last: &mut Option<Instant>, delay: Duration) -> Instant {
    let soonest = Instant::now() + delay;
    let at = last.map_or(soonest, |last| soonest.max(last + APART));
    *last = Some(at);
    at
}
