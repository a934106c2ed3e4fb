//! One ordered stream of frames a reader, whatever the transport: from history while it is behind,
//! from the hub while it is live.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use carillon_broker::{Broker, BrokerError, FanOut, History, Kind};
use carillon_protocol::{Audience, Backoff, CloseCode, Cursor, Resume, ServerMessage};
use tokio::sync::{Notify, Semaphore};

use crate::frame::Frame;
use crate::hub::{Direct, Hub, ReaderId, Take};
use crate::limits::Place;
use crate::metrics::{self, Limit};

/// Pages of history that a replica reads at the same time at most: after a reconnect everyone is behind at once.
const HISTORY_READS_MAX: usize = 32;
/// The longest pause after a read of history that failed.
const RETRY_CAP_MS: u64 = 1_000;

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Who reads, and from where. It is filled before the upgrade, in one place.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Its name in the hub, drawn at random: nobody may guess it.
    pub id: ReaderId,
    /// At least one; each once.
    pub audiences: Arc<[Audience]>,
    /// The last cursor that the reader saw; `None` is "from now on".
    pub since: Option<Cursor>,
}

/// What feeds share.
pub struct Feeds {
    hub: Arc<Hub>,
    broker: Broker,
    fan_out: FanOut,
    reads: Semaphore,
    clock: Clock,
}

/// One reader's stream. Dropping it makes the reader leave.
pub struct Feed {
    feeds: Arc<Feeds>,
    id: ReaderId,
    notify: Arc<Notify>,
    /// Read while joining, to be given out first, with where the reader stands until then.
    first: Option<(Output, Cursor)>,
    place: Option<Place>,
}

/// What a reader is told when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Where it stands.
    pub cursor: Cursor,
    /// Whether everything after its cursor follows.
    pub resume: Resume,
}

/// Frames to write, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// JSON texts.
    pub frames: Vec<Utf8Bytes>,
    /// How many of them are notifications.
    pub notifications: usize,
    /// The ids of those that one user sends to another.
    pub messages: Vec<Arc<str>>,
    /// What is for this connection alone, with the cursor to frame it by.
    pub direct: Option<(Vec<Direct>, Cursor)>,
    /// Close with this code; nothing follows.
    pub close: Option<CloseCode>,
}

impl Output {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.direct.is_none() && self.close.is_none()
    }

    /// What to say beside the close code.
    pub fn close_reason(&self) -> &'static str {
        match self.close {
            Some(CloseCode::REFUSED) => "the token was revoked",
            Some(CloseCode::SLOW) => "too much waited for this connection; resume from your cursor",
            _ => "",
        }
    }

    /// All frames as they go out on `/ws` and `/sse`.
    pub fn texts(&self) -> impl Iterator<Item = Utf8Bytes> {
        let direct =
            self.direct.iter().flat_map(|(direct, cursor)| direct.iter().map(|one| one.frame(cursor)));
        self.frames.iter().cloned().chain(direct)
    }
}

impl Feeds {
    /// Feeds over a hub and the history behind it.
    #[must_use]
    pub fn new(hub: Arc<Hub>, broker: Broker, fan_out: FanOut, clock: Clock) -> Arc<Self> {
        Arc::new(Self { hub, broker, fan_out, reads: Semaphore::new(HISTORY_READS_MAX), clock })
    }

    /// Adds a reader. What it resumes is read before it is welcomed, so that the welcome can tell
    /// whether it is complete.
    ///
    /// # Errors
    /// When Redis is needed and away.
    pub async fn join(self: &Arc<Self>, reader: Reader) -> Result<(Feed, Joined), BrokerError> {
        let Reader { id, audiences, since } = reader;
        let notify = Arc::<Notify>::default();
        let now = self.hub.join(id, audiences, &notify);
        let mut feed = Feed { feeds: Arc::clone(self), id, notify, first: None, place: None };
        let since = since.filter(|_| self.fan_out == FanOut::All);
        let joined = match (since, now) {
            (Some(since), _) => feed.resume(since).await?,
            (None, Some(cursor)) if self.fan_out == FanOut::All => Joined { cursor, resume: Resume::None },
            (None, _) => {
                let cursor = self.broker.tail().await?;
                self.hub.set_position(id, &cursor);
                Joined { cursor, resume: Resume::None }
            }
        };
        Ok((feed, joined))
    }

    /// The hub that the readers hang on.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Reads on from a cursor, at most `limit` entries, when its turn comes among all who read here.
    ///
    /// # Errors
    /// When Redis is away or refuses.
    pub async fn history(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
    ) -> Result<History, BrokerError> {
        let _permit = match self.reads.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => {
                metrics::limit_reached(Limit::HistoryReads);
                // The semaphore is never closed.
                self.reads.acquire().await.ok()
            }
        };
        metrics::history_read();
        self.broker.history(audiences, since, limit).await
    }

    fn output(&self, frames: impl IntoIterator<Item = Arc<Frame>>) -> Output {
        let now_ms = (self.clock)();
        let mut output = Output::default();
        for frame in frames {
            if frame.expires_at_ms.is_some_and(|at| at <= now_ms) {
                metrics::expired();
            } else {
                output.frames.push(frame.text.clone());
                output.notifications += usize::from(frame.kind == Kind::Notification);
                output.messages.extend(frame.message.clone());
            }
        }
        output
    }
}

impl Feed {
    /// What comes next; never empty. A call that is dropped loses nothing.
    pub async fn next(&mut self) -> Output {
        if let Some((first, _)) = self.first.take() {
            return first;
        }
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            let mut stuck = false;
            let output = match self.feeds.hub.take(self.id) {
                Take::Frames(frames) => self.feeds.output(frames),
                Take::Direct(direct, cursor) => {
                    Output { direct: Some((direct, cursor)), ..Output::default() }
                }
                Take::Close(code) => Output { close: Some(code), ..Output::default() },
                Take::Wait => {
                    self.notify.notified().await;
                    continue;
                }
                // Boxed, since most readers are live: an idle one does not carry the state of a read.
                Take::Behind(cursor) => match Box::pin(self.read(&cursor)).await {
                    Ok(history) => {
                        stuck = history.reached == cursor;
                        self.recall(&history)
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a reader waits for history");
                        stuck = true;
                        Output::default()
                    }
                },
            };
            if !output.is_empty() {
                return output;
            }
            // Redis is away, or knows less than was heard: asking again at once would not help.
            if stuck {
                let wait = Duration::from_millis(backoff.next_ms(fastrand::f64()));
                let _ = tokio::time::timeout(wait, self.notify.notified()).await;
            }
        }
    }

    /// Where the reader stands, for a heartbeat: never after what was not given out yet. A client that is told a
    /// later one, and cut, would resume behind what it has not seen.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        match &self.first {
            Some((_, from)) => Some(from.clone()),
            None => self.feeds.hub.cursor(self.id),
        }
    }

    /// Names the reader in its hub.
    #[must_use]
    pub fn id(&self) -> ReaderId {
        self.id
    }

    /// Gives back the place within the limits when the reader leaves.
    pub(crate) fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    async fn resume(&mut self, since: Cursor) -> Result<Joined, BrokerError> {
        let history = Box::pin(self.read(&since)).await?;
        let resume = if history.gap.is_some() { Resume::Gap } else { Resume::Complete };
        let first = self.recall(&history);
        self.first = (!first.is_empty()).then(|| (first, history.from.clone()));
        Ok(Joined { cursor: history.from, resume })
    }

    async fn read(&self, since: &Cursor) -> Result<History, BrokerError> {
        self.feeds.history(&self.feeds.hub.audiences(self.id), since, usize::MAX).await
    }

    /// Turns a page of history into frames and moves the reader on.
    fn recall(&self, history: &History) -> Output {
        let epoch = &history.reached.epoch;
        let frames = history
            .entries
            .iter()
            .filter_map(|recalled| Frame::encode(epoch, &recalled.claimed_by, &recalled.stored));
        let mut output = self.feeds.output(frames.map(Arc::new));
        if let Some(reason) = history.gap {
            metrics::gap(reason);
            // With nothing to follow, the reader stands at the end; else what follows moves it on.
            let cursor = if output.frames.is_empty() { &history.reached } else { &history.from };
            output
                .frames
                .insert(0, ServerMessage::Gap { cursor: cursor.to_string(), reason }.to_json().into());
        }
        self.feeds.hub.set_position(self.id, &history.reached);
        output
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.feeds.hub.leave(self.id);
    }
}
