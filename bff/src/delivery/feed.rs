//! One ordered stream of frames for each reader, whatever the transport: from history while the reader is behind, from the
//! hub while it is live.

mod output;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use carillon_broker::{Broker, BrokerError, FanOut, Gap};
use carillon_protocol::received::Gap as GapFrame;
use carillon_protocol::{Audience, Backoff, CloseCode, Cursor, Resume, ServerMessage};
use ipnet::IpNet;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::clock::Clock;
use crate::delivery::frame::Frame;
use crate::delivery::hub::{Hub, Next, ReaderId};
use crate::delivery::pages::{Pages, SharedPage};
use crate::delivery::topics::{PendingTopic, TopicPermits, Topics};
use crate::limits::clients::ReaderPermit;
use crate::metrics;
use crate::random::Random;
use crate::refusal::Refusal;

pub use output::Output;

/// The longest pause after a failed read of history.
const RETRY_CAP_MS: u64 = 1_000;
/// A reader is closed after this many failed reads of history in a row, up to a second apart: another replica may succeed,
/// and a reader that waits for ever looks healthy.
const FAILURES_MAX: u32 = 60;

/// A reader and where it starts. It is filled before the upgrade, in one place.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Its id in the hub, drawn at random so that no client can guess it.
    pub id: ReaderId,
    /// At least one audience, without repeats.
    pub audiences: Arc<[Audience]>,
    /// The last cursor that the reader saw; `None` starts at the current position.
    pub since: Option<Cursor>,
    /// The network that its limits count against, where it is known.
    pub network: Option<IpNet>,
}

/// The state that all feeds share.
pub struct Feeds {
    hub: Arc<Hub>,
    broker: Broker,
    fan_out: FanOut,
    pages: Pages,
    topics: Arc<Topics>,
    clock: Clock,
    random: Random,
}

/// The stream of one reader. Dropping it removes the reader from the hub.
pub struct Feed {
    feeds: Arc<Feeds>,
    id: ReaderId,
    network: Option<IpNet>,
    notify: Arc<Notify>,
    /// The frames that were read while the reader joined, with its cursor before them. They are returned first.
    first: Option<(Output, Cursor)>,
    /// Topics that the reader subscribed to with a `since`, while their missed entries are still being read.
    pending: VecDeque<(PendingTopic, Cursor)>,
    /// Audiences whose gap was reported since the reader was last live: each gap is sent once.
    announced: BTreeSet<Option<Audience>>,
    /// The epoch in which they were reported.
    announced_in: String,
    permit: Option<ReaderPermit>,
    topics: Option<TopicPermits>,
}

/// The fields of a reader's welcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The reader's position.
    pub cursor: Cursor,
    /// Whether all entries after its `since` step.
    pub resume: Resume,
}

impl Feeds {
    /// Creates the feeds of a hub and of the history behind it.
    pub fn new(hub: Arc<Hub>, broker: Broker, fan_out: FanOut, clock: Clock, random: Random) -> Arc<Self> {
        let pages = Pages::new(broker.clone());
        Arc::new(Self { hub, broker, fan_out, pages, topics: Arc::default(), clock, random })
    }

    /// Adds a reader. The history after its `since` is read before the welcome, so that the welcome states whether the
    /// resume is complete.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub async fn join(self: &Arc<Self>, reader: Reader) -> Result<(Feed, Joined), BrokerError> {
        let Reader { id, audiences, since, network } = reader;
        let notify = Arc::<Notify>::default();
        let now = self.hub.join(id, audiences, &notify);
        let feeds = Arc::clone(self);
        let (pending, announced) = (VecDeque::new(), BTreeSet::new());
        let mut feed = Feed {
            feeds,
            id,
            network,
            notify,
            first: None,
            pending,
            announced,
            announced_in: String::new(),
            permit: None,
            topics: None,
        };
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

    /// The hub of these readers.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The pages of history, whose budget large frames are charged to as well.
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Takes permits for the topics of a reader that is about to join.
    pub(crate) fn take_topic_permits(&self, reader: &Reader) -> Result<TopicPermits, Refusal> {
        let mut permits = TopicPermits::new(&self.topics, reader.network);
        permits.take(&self.hub, reader.audiences.iter())?;
        Ok(permits)
    }

    /// Returns the frames that have not expired.
    fn fresh<'a>(&self, frames: impl IntoIterator<Item = &'a Arc<Frame>>) -> Vec<Arc<Frame>> {
        let now_ms = (self.clock)();
        let is_fresh = |frame: &&Arc<Frame>| {
            let is_over = frame.expires_at_ms.is_some_and(|at| at <= now_ms);
            if is_over {
                metrics::expired();
            }
            !is_over
        };
        frames.into_iter().filter(is_fresh).cloned().collect()
    }
}

impl Feed {
    /// Returns the next output, which is never empty. This is cancel-safe.
    pub async fn next(&mut self) -> Output {
        if let Some((first, _)) = self.first.take() {
            return first;
        }
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            let step =
                if self.pending.is_empty() { self.take().await } else { Box::pin(self.catch_up()).await };
            match step {
                Step::Given(output) if !output.is_empty() => return output,
                Step::Given(_) => backoff.reset(),
                Step::Wait => self.notify.notified().await,
                Step::Failed if backoff.attempt() >= FAILURES_MAX => {
                    return Output::close(CloseCode::INTERNAL);
                }
                // Redis is unreachable, or returned less than was received over fan-out. An immediate retry would not help.
                Step::Stuck | Step::Failed => {
                    let wait = Duration::from_millis(backoff.next_ms((self.feeds.random)()));
                    let _ = tokio::time::timeout(wait, self.notify.notified()).await;
                }
            }
        }
    }

    async fn take(&mut self) -> Step {
        let taken = self.feeds.hub.next(self.id);
        self.step(taken).await
    }

    async fn step(&mut self, taken: Next) -> Step {
        match taken {
            Next::Frames(frames) => {
                self.announced.clear();
                Step::Given(Output { frames: self.feeds.fresh(&frames), ..Output::default() })
            }
            Next::Direct(direct, cursor) => {
                Step::Given(Output { direct: Some((direct, cursor)), ..Output::default() })
            }
            Next::Close(code) => Step::Given(Output::close(code)),
            Next::Wait => Step::Wait,
            // Boxed, since most readers are live: an idle reader does not carry the state of a read.
            Next::Behind(cursor) => match Box::pin(self.read(&cursor)).await {
                Ok(Some(page)) => {
                    let is_stuck = page.get().is_none_or(|page| page.reached == cursor);
                    let output = self.page_output(page);
                    if is_stuck && output.is_empty() { Step::Stuck } else { Step::Given(output) }
                }
                Ok(None) => Step::Stuck,
                Err(error) => Step::of(&error),
            },
        }
    }

    /// Reads the next page of a pending topic's missed entries, up to the reader's position. Then the reader subscribes to
    /// the topic in the hub, so that its entries stay in order.
    async fn catch_up(&mut self) -> Step {
        if let Some(mail) = self.feeds.hub.take_mail(self.id) {
            return self.step(mail).await;
        }
        let front = self.pending.front();
        let Some((topic, since)) = front.map(|(topic, since)| (topic.topic().clone(), since.clone())) else {
            return Step::Wait;
        };
        let Some(here) = self.cursor() else { return Step::Wait };
        let audiences: Arc<[Audience]> = [topic.clone()].into();
        let page = match self.feeds.pages.read(&audiences, &since, self.network).await {
            Ok(Some(page)) => page,
            Ok(None) => return Step::Stuck,
            Err(error) => return Step::of(&error),
        };
        let Some(read) = page.get() else { return Step::Stuck };
        let is_before =
            |frame: &&Arc<Frame>| frame.position <= here.position || read.reached.epoch != here.epoch;
        let frames = self.feeds.fresh(read.frames.iter().filter(is_before));
        let is_over = read.reached.position >= here.position || read.reached == since;
        let gaps = self.announce(&read.gaps, &here);
        let missed = frames.iter().map(|frame| at_cursor(&frame.text, &here)).collect();
        let at = read.reached.clone();
        if is_over {
            self.feeds.hub.subscribe(self.id, &topic);
            self.pending.pop_front();
        } else if let Some((_, since)) = self.pending.front_mut() {
            *since = at;
        }
        Step::Given(Output { gaps, missed, page: Some(page), ..Output::default() })
    }

    /// Subscribes the reader to a topic that it does not have yet; with a cursor, the entries since then are sent first.
    pub(crate) fn subscribe(&mut self, topic: Audience, since: Option<Cursor>) -> Result<(), Refusal> {
        let permits = self.topics.get_or_insert_with(|| TopicPermits::new(&self.feeds.topics, self.network));
        permits.take(&self.feeds.hub, [&topic])?;
        match since.filter(|_| self.feeds.fan_out == FanOut::All) {
            Some(since) => self.pending.push_back((PendingTopic::new(&self.feeds.topics, topic), since)),
            None => {
                self.feeds.hub.subscribe(self.id, &topic);
            }
        }
        Ok(())
    }

    /// Unsubscribes the reader from a topic.
    pub fn unsubscribe(&mut self, topic: &Audience) {
        let before = self.pending.len();
        self.pending.retain(|(pending, _)| pending.topic() != topic);
        let had = self.feeds.hub.unsubscribe(self.id, topic) || self.pending.len() < before;
        if let Some(permits) = self.topics.as_mut().filter(|_| had) {
            permits.give_back(1);
        }
    }

    /// The topics that the reader is subscribed to or about to be.
    pub fn topics(&self) -> Vec<String> {
        let pending = self.pending.iter().map(|(topic, _)| topic.topic().clone());
        let all = self.feeds.hub.audiences(self.id).iter().cloned().chain(pending).collect::<Vec<_>>();
        let topics = all.into_iter().filter_map(|audience| match audience {
            Audience::Topic(topic) => Some(topic),
            _ => None,
        });
        topics.collect()
    }

    /// The reader's cursor, for a heartbeat. It never lies after frames that were not returned yet: a client that was cut
    /// off would resume after entries that it has not received.
    pub fn cursor(&self) -> Option<Cursor> {
        match &self.first {
            Some((_, from)) => Some(from.clone()),
            None => self.feeds.hub.cursor(self.id),
        }
    }

    /// The reader's id in the hub.
    pub fn id(&self) -> ReaderId {
        self.id
    }

    /// The network that the reader's limits count against.
    pub(crate) fn network(&self) -> Option<IpNet> {
        self.network
    }

    /// Holds the reader's permits until it leaves.
    pub(crate) fn hold_permits(&mut self, permit: ReaderPermit, topics: TopicPermits) {
        (self.permit, self.topics) = (Some(permit), Some(topics));
    }

    async fn resume(&mut self, since: Cursor) -> Result<Joined, BrokerError> {
        let Some(page) = Box::pin(self.read(&since)).await? else {
            return Err(BrokerError::Away("too many readers read history at this moment".to_owned()));
        };
        let Some(read) = page.get() else {
            return Err(BrokerError::Away("the page of history is missing".to_owned()));
        };
        let resume = if read.gaps.is_empty() { Resume::Complete } else { Resume::Gap };
        let from = read.from.clone();
        let first = self.page_output(page);
        self.first = (!first.is_empty()).then(|| (first, from.clone()));
        Ok(Joined { cursor: from, resume })
    }

    async fn read(&self, since: &Cursor) -> Result<Option<SharedPage>, BrokerError> {
        let audiences = self.feeds.hub.audiences(self.id);
        self.feeds.pages.read(&audiences, since, self.network).await
    }

    /// Converts a page of history to an output and moves the reader to its end.
    fn page_output(&mut self, page: SharedPage) -> Output {
        let Some(read) = page.get() else { return Output::default() };
        let frames = self.feeds.fresh(&read.frames);
        // Without frames the reader is at the end of the page already; otherwise the frames move it there.
        let gaps = self.announce(&read.gaps, if frames.is_empty() { &read.reached } else { &read.from });
        self.feeds.hub.set_position(self.id, &read.reached);
        Output { gaps, frames, page: Some(page), ..Output::default() }
    }

    /// Returns the frames of the gaps that were not reported since the reader was last live.
    fn announce(&mut self, gaps: &[Gap], cursor: &Cursor) -> Vec<Utf8Bytes> {
        // Data that is lost again is another gap, also when nothing was published in between.
        if !gaps.is_empty() && self.announced_in != cursor.epoch {
            self.announced.clear();
            self.announced_in.clone_from(&cursor.epoch);
        }
        let new: Vec<_> = gaps.iter().filter(|gap| self.announced.insert(gap.audience.clone())).collect();
        let frame = |gap: &&Gap| {
            metrics::gap(gap.reason);
            let Gap { reason, audience } = (*gap).clone();
            ServerMessage::Gap(GapFrame { cursor: cursor.to_string(), reason, audience }).to_json().into()
        };
        new.iter().map(frame).collect()
    }
}

/// The result of one attempt to get frames.
enum Step {
    /// An output, which may be empty.
    Given(Output),
    /// No frames until the reader is notified.
    Wait,
    /// No frames, and an immediate retry would not help.
    Stuck,
    /// Like `Stuck`, and it counts as a failure.
    Failed,
}

impl Step {
    fn of(error: &BrokerError) -> Self {
        match error {
            BrokerError::Away(_) => {
                tracing::debug!(%error, "a reader waits for a read of history");
                Self::Stuck
            }
            _ => Self::Failed,
        }
    }
}

/// Returns a frame with its cursor replaced by the reader's own.
fn at_cursor(frame: &str, cursor: &Cursor) -> Utf8Bytes {
    const BEFORE: &str = r#""cursor":""#;
    let cut = frame.split_once(BEFORE).and_then(|(head, rest)| Some((head, rest.split_once('"')?.1)));
    match cut {
        Some((head, tail)) => format!("{head}{BEFORE}{cursor}\"{tail}").into(),
        None => frame.into(),
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.feeds.hub.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use carillon_broker::Subscriptions;
    use carillon_protocol::Position;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_topic_counts_from_subscribe_to_unsubscribe() {
        let (broker, _faults) = Broker::memory(Arc::new(|| 0));
        let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
        let feeds = Feeds::new(hub, broker, FanOut::All, Arc::new(|| 0), Arc::new(|| 0.5));
        let reader = Reader { id: 1, audiences: [Audience::Everyone].into(), since: None, network: None };
        let (mut feed, joined) = feeds.join(reader).await.unwrap();
        let topic = Audience::Topic("news".to_owned());
        let count = || (feeds.topics.pending(), feeds.hub.topics());
        feed.subscribe(topic.clone(), Some(joined.cursor.clone())).unwrap();
        assert_eq!(count(), (1, 0));
        feed.unsubscribe(&topic);
        assert_eq!(count(), (0, 0));
        feed.subscribe(topic.clone(), Some(joined.cursor.clone())).unwrap();
        // No entry of the topic was missed, so the output is empty.
        let _ = tokio::time::timeout(Duration::from_secs(60), feed.next()).await;
        assert_eq!(count(), (0, 1), "the hub has the subscription now");
        feed.subscribe(Audience::Topic("more".to_owned()), Some(joined.cursor)).unwrap();
        assert_eq!(count(), (1, 1));
        drop(feed);
        assert_eq!(count(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn data_that_is_lost_twice_in_a_quiet_time_is_two_gaps() {
        let (broker, faults) = Broker::memory(Arc::new(|| 1));
        let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
        let feeds =
            Feeds::new(Arc::clone(&hub), broker.clone(), FanOut::All, Arc::new(|| 1), Arc::new(|| 0.5));
        let reader = Reader { id: 1, audiences: [Audience::Everyone].into(), since: None, network: None };
        let (mut feed, _) = feeds.join(reader).await.unwrap();
        for _ in 0..2 {
            faults.forget();
            let tail = broker.tail().await.unwrap();
            hub.subscribed(&[(Audience::Everyone, None)], &tail);
            let next = tokio::time::timeout(Duration::from_secs(60), feed.next()).await;
            assert_eq!(next.expect("a gap").gaps.len(), 1);
            let _ = tokio::time::timeout(Duration::from_secs(60), feed.next()).await;
        }
    }

    #[test]
    fn a_missed_frame_carries_the_cursor_of_its_reader() {
        let cursor = Cursor { epoch: "e".into(), position: Position { ms: 9, n: 1 } };
        let frame =
            r#"{"type":"notification","cursor":"e.5-0","claimed_by":"b","notification":{"cursor":"x"}}"#;
        assert_eq!(&*at_cursor(frame, &cursor), frame.replace("e.5-0", "e.9-1"));
    }
}
