//! One ordered stream of frames a reader, whatever the transport: from history while it is behind,
//! from the hub while it is live.

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
use crate::delivery::hub::{Hub, ReaderId, Take};
use crate::delivery::pages::{Pages, SharedPage};
use crate::delivery::topics::{TakenUp, TopicPlaces, Topics};
use crate::limits::clients::Place;
use crate::metrics;
use crate::refusal::Refusal;

pub use output::Output;

/// The longest pause after a read of history that failed.
const RETRY_CAP_MS: u64 = 1_000;
/// A reader whose history cannot be read for so many tries in a row, up to a second apart, is closed: another replica may
/// do better, and a reader that is stuck for ever looks well.
const FAILURES_MAX: u32 = 60;

/// Who reads, and from where. It is filled before the upgrade, in one place.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Its name in the hub, drawn at random: nobody may guess it.
    pub id: ReaderId,
    /// At least one; each once.
    pub audiences: Arc<[Audience]>,
    /// The last cursor that the reader saw; `None` is "from now on".
    pub since: Option<Cursor>,
    /// What it is counted by, where that is known.
    pub network: Option<IpNet>,
}

/// What feeds share.
pub struct Feeds {
    hub: Arc<Hub>,
    broker: Broker,
    fan_out: FanOut,
    pages: Pages,
    topics: Arc<Topics>,
    clock: Clock,
}

/// One reader's stream. Dropping it makes the reader leave.
pub struct Feed {
    feeds: Arc<Feeds>,
    id: ReaderId,
    network: Option<IpNet>,
    notify: Arc<Notify>,
    /// Read while joining, to be given out first, with where the reader stands until then.
    first: Option<(Output, Cursor)>,
    /// Topics that are taken up with what was missed of them, which comes first.
    joining: VecDeque<(TakenUp, Cursor)>,
    /// What was announced as gone since the reader was live: each is told once.
    told: BTreeSet<Option<Audience>>,
    place: Option<Place>,
    topics: Option<TopicPlaces>,
}

/// What a reader is told when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Where it stands.
    pub cursor: Cursor,
    /// Whether everything after its cursor follows.
    pub resume: Resume,
}

impl Feeds {
    /// Feeds over a hub and the history behind it.
    #[must_use]
    pub fn new(hub: Arc<Hub>, broker: Broker, fan_out: FanOut, clock: Clock) -> Arc<Self> {
        let pages = Pages::new(broker.clone());
        Arc::new(Self { hub, broker, fan_out, pages, topics: Arc::default(), clock })
    }

    /// Adds a reader. What it resumes is read before it is welcomed, so that the welcome can tell
    /// whether it is complete.
    ///
    /// # Errors
    /// When Redis is needed and away.
    pub async fn join(self: &Arc<Self>, reader: Reader) -> Result<(Feed, Joined), BrokerError> {
        let Reader { id, audiences, since, network } = reader;
        let notify = Arc::<Notify>::default();
        let now = self.hub.join(id, audiences, &notify);
        let feeds = Arc::clone(self);
        let (joining, told) = (VecDeque::new(), BTreeSet::new());
        let mut feed =
            Feed { feeds, id, network, notify, first: None, joining, told, place: None, topics: None };
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

    /// The hub that the readers belong to.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// What readers are sent in pages, and large frames, is taken from.
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Takes places for the topics of a reader that is about to join.
    pub(crate) fn take_topics(&self, reader: &Reader) -> Result<TopicPlaces, Refusal> {
        let mut places = TopicPlaces::new(&self.topics, reader.network);
        places.take(&self.hub, reader.audiences.iter())?;
        Ok(places)
    }

    /// The frames that have not expired.
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
    /// What comes next; never empty. A call that is dropped loses nothing.
    pub async fn next(&mut self) -> Output {
        if let Some((first, _)) = self.first.take() {
            return first;
        }
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        loop {
            let step =
                if self.joining.is_empty() { self.take().await } else { Box::pin(self.take_up()).await };
            match step {
                Step::Given(output) if !output.is_empty() => return output,
                Step::Given(_) => backoff.reset(),
                Step::Wait => self.notify.notified().await,
                Step::Failed if backoff.attempt() >= FAILURES_MAX => {
                    return Output::close(CloseCode::INTERNAL);
                }
                // Redis is away, or knows less than was received: reading again at once would not help.
                Step::Stuck | Step::Failed => {
                    let wait = Duration::from_millis(backoff.next_ms(fastrand::f64()));
                    let _ = tokio::time::timeout(wait, self.notify.notified()).await;
                }
            }
        }
    }

    async fn take(&mut self) -> Step {
        let taken = self.feeds.hub.take(self.id);
        self.follow(taken).await
    }

    async fn follow(&mut self, taken: Take) -> Step {
        match taken {
            Take::Frames(frames) => {
                self.told.clear();
                Step::Given(Output { frames: self.feeds.fresh(&frames), ..Output::default() })
            }
            Take::Direct(direct, cursor) => {
                Step::Given(Output { direct: Some((direct, cursor)), ..Output::default() })
            }
            Take::Close(code) => Step::Given(Output::close(code)),
            Take::Wait => Step::Wait,
            // Boxed, since most readers are live: an idle one does not carry the state of a read.
            Take::Behind(cursor) => match Box::pin(self.read(&cursor)).await {
                Ok(Some(page)) => {
                    let is_stuck = page.get().is_none_or(|page| page.reached == cursor);
                    let output = self.recall(page);
                    if is_stuck && output.is_empty() { Step::Stuck } else { Step::Given(output) }
                }
                Ok(None) => Step::Stuck,
                Err(error) => Step::of(&error),
            },
        }
    }

    /// Reads on in what was missed of a topic that is taken up, up to where the reader stands. Then the reader has it as all
    /// others, and no entry of it came before an older one.
    async fn take_up(&mut self) -> Step {
        if let Some(mail) = self.feeds.hub.take_mail(self.id) {
            return self.follow(mail).await;
        }
        let front = self.joining.front();
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
            self.joining.pop_front();
        } else if let Some((_, since)) = self.joining.front_mut() {
            *since = at;
        }
        Step::Given(Output { gaps, missed, page: Some(page), ..Output::default() })
    }

    /// Takes up a topic that the reader does not have, with what was missed of it since a cursor.
    pub(crate) fn subscribe(&mut self, topic: Audience, since: Option<Cursor>) -> Result<(), Refusal> {
        let places = self.topics.get_or_insert_with(|| TopicPlaces::new(&self.feeds.topics, self.network));
        places.take(&self.feeds.hub, [&topic])?;
        match since.filter(|_| self.feeds.fan_out == FanOut::All) {
            Some(since) => self.joining.push_back((TakenUp::new(&self.feeds.topics, topic), since)),
            None => {
                self.feeds.hub.subscribe(self.id, &topic);
            }
        }
        Ok(())
    }

    /// Leaves a topic.
    pub fn unsubscribe(&mut self, topic: &Audience) {
        let before = self.joining.len();
        self.joining.retain(|(joining, _)| joining.topic() != topic);
        let had = self.feeds.hub.unsubscribe(self.id, topic) || self.joining.len() < before;
        if let Some(places) = self.topics.as_mut().filter(|_| had) {
            places.give_back(1);
        }
    }

    /// The topics that the reader has, or is about to have.
    pub fn topics(&self) -> Vec<String> {
        let joining = self.joining.iter().map(|(topic, _)| topic.topic().clone());
        let all = self.feeds.hub.audiences(self.id).iter().cloned().chain(joining).collect::<Vec<_>>();
        let topics = all.into_iter().filter_map(|audience| match audience {
            Audience::Topic(topic) => Some(topic),
            _ => None,
        });
        topics.collect()
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

    /// What the reader is counted by.
    pub(crate) fn network(&self) -> Option<IpNet> {
        self.network
    }

    /// Gives back the places within the limits when the reader leaves.
    pub(crate) fn hold(&mut self, place: Place, topics: TopicPlaces) {
        (self.place, self.topics) = (Some(place), Some(topics));
    }

    async fn resume(&mut self, since: Cursor) -> Result<Joined, BrokerError> {
        let Some(page) = Box::pin(self.read(&since)).await? else {
            return Err(BrokerError::Away("too many read history at this moment".to_owned()));
        };
        let Some(read) = page.get() else { return Err(BrokerError::Away("no page".to_owned())) };
        let resume = if read.gaps.is_empty() { Resume::Complete } else { Resume::Gap };
        let from = read.from.clone();
        let first = self.recall(page);
        self.first = (!first.is_empty()).then(|| (first, from.clone()));
        Ok(Joined { cursor: from, resume })
    }

    async fn read(&self, since: &Cursor) -> Result<Option<SharedPage>, BrokerError> {
        let audiences = self.feeds.hub.audiences(self.id);
        self.feeds.pages.read(&audiences, since, self.network).await
    }

    /// Turns a page of history into an output and moves the reader on.
    fn recall(&mut self, page: SharedPage) -> Output {
        let Some(read) = page.get() else { return Output::default() };
        let frames = self.feeds.fresh(&read.frames);
        // With nothing to follow, the reader stands at the end; else what follows moves it on.
        let gaps = self.announce(&read.gaps, if frames.is_empty() { &read.reached } else { &read.from });
        self.feeds.hub.set_position(self.id, &read.reached);
        Output { gaps, frames, page: Some(page), ..Output::default() }
    }

    /// The frames of gaps that the reader was not told of yet since it was live.
    fn announce(&mut self, gaps: &[Gap], cursor: &Cursor) -> Vec<Utf8Bytes> {
        let new: Vec<_> = gaps.iter().filter(|gap| self.told.insert(gap.audience.clone())).collect();
        let frame = |gap: &&Gap| {
            metrics::gap(gap.reason);
            let Gap { reason, audience } = (*gap).clone();
            ServerMessage::Gap(GapFrame { cursor: cursor.to_string(), reason, audience }).to_json().into()
        };
        new.iter().map(frame).collect()
    }
}

/// What came of one try.
enum Step {
    /// These frames, if any.
    Given(Output),
    /// Nothing, until the reader is notified.
    Wait,
    /// Nothing, and trying again at once would not help.
    Stuck,
    /// The same, and it counts.
    Failed,
}

impl Step {
    fn of(error: &BrokerError) -> Self {
        match error {
            BrokerError::Away(_) => {
                tracing::debug!(%error, "a reader waits for history");
                Self::Stuck
            }
            _ => Self::Failed,
        }
    }
}

/// A frame with another cursor in it: the one at which its reader stands.
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
    async fn a_topic_counts_from_when_it_is_taken_up_until_it_is_left() {
        let (broker, _faults) = Broker::memory(Arc::new(|| 0));
        let hub = Arc::new(Hub::new(FanOut::All, Subscriptions::default()));
        let feeds = Feeds::new(hub, broker, FanOut::All, Arc::new(|| 0));
        let reader = Reader { id: 1, audiences: [Audience::Everyone].into(), since: None, network: None };
        let (mut feed, joined) = feeds.join(reader).await.unwrap();
        let topic = Audience::Topic("news".to_owned());
        let count = || (feeds.topics.taken_up(), feeds.hub.topics());
        feed.subscribe(topic.clone(), Some(joined.cursor.clone())).unwrap();
        assert_eq!(count(), (1, 0));
        feed.unsubscribe(&topic);
        assert_eq!(count(), (0, 0));
        feed.subscribe(topic.clone(), Some(joined.cursor.clone())).unwrap();
        // Nothing was missed of it, so nothing is given.
        let _ = tokio::time::timeout(Duration::from_secs(60), feed.next()).await;
        assert_eq!(count(), (0, 1), "it is the hub's now");
        feed.subscribe(Audience::Topic("more".to_owned()), Some(joined.cursor)).unwrap();
        assert_eq!(count(), (1, 1));
        drop(feed);
        assert_eq!(count(), (0, 0));
    }

    #[test]
    fn a_frame_from_before_a_reader_s_place_does_not_move_it() {
        let cursor = Cursor { epoch: "e".into(), position: Position { ms: 9, n: 1 } };
        let frame =
            r#"{"type":"notification","cursor":"e.5-0","claimed_by":"b","notification":{"cursor":"x"}}"#;
        assert_eq!(&*at_cursor(frame, &cursor), frame.replace("e.5-0", "e.9-1"));
    }
}
