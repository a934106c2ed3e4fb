//! Bounds the topics of readers: each distinct topic is a subscription in Redis, and each topic of a reader costs memory.

use std::collections::HashMap;
use std::sync::Arc;

use carillon_protocol::Audience;
use carillon_service::counts::release;
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::delivery::hub::Hub;
use crate::metrics::{self, Limit};
use crate::refusal::Refusal;

/// Maximum distinct topics with a reader here.
const DISTINCT_MAX: usize = 15_000;
/// Maximum topics of all readers together, each counted as often as it has readers.
const SUBSCRIPTIONS_MAX: usize = 100_000;
/// Maximum topics of all readers from one address.
const SUBSCRIPTIONS_PER_ADDRESS_MAX: usize = 10_000;
/// The `Retry-After` of a refusal, in seconds: other readers have to leave topics first.
const RETRY_SECONDS: u64 = 5;

/// The topics of all readers of a replica.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    networks: HashMap<IpNet, usize>,
    /// Topics whose missed entries are still being read for a reader, with the number of such readers.
    pending: HashMap<Audience, usize>,
}

/// The permits of one reader's topics. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct TopicPermits {
    topics: Arc<Topics>,
    network: Option<IpNet>,
    count: usize,
}

/// A topic that a reader subscribed to and whose missed entries it still reads. The hub does not have it yet, so it counts
/// here.
#[derive(Debug)]
pub(crate) struct PendingTopic {
    topics: Arc<Topics>,
    topic: Audience,
}

impl PendingTopic {
    pub(crate) fn new(topics: &Arc<Topics>, topic: Audience) -> Self {
        *topics.taken.lock().pending.entry(topic.clone()).or_default() += 1;
        Self { topics: Arc::clone(topics), topic }
    }

    pub(crate) fn topic(&self) -> &Audience {
        &self.topic
    }
}

impl Drop for PendingTopic {
    fn drop(&mut self) {
        release(&mut self.topics.taken.lock().pending, self.topic.clone(), 1);
    }
}

impl TopicPermits {
    /// The permits of a reader without topics.
    pub(crate) fn new(topics: &Arc<Topics>, network: Option<IpNet>) -> Self {
        Self { topics: Arc::clone(topics), network, count: 0 }
    }

    /// Takes permits for topics: for all of them or for none.
    pub(crate) fn take<'a>(
        &mut self,
        hub: &Hub,
        audiences: impl IntoIterator<Item = &'a Audience>,
    ) -> Result<(), Refusal> {
        let topics = audiences.into_iter().filter(|audience| matches!(audience, Audience::Topic(_)));
        let topics: Vec<_> = topics.collect();
        if topics.is_empty() {
            return Ok(());
        }
        let mut taken = self.topics.taken.lock();
        let is_new = |topic: &&&Audience| !hub.has(topic) && !taken.pending.contains_key(**topic);
        let new = topics.iter().filter(is_new).count();
        // A topic that some readers have and others wait for counts twice for that moment.
        if new > 0 && hub.topics() + taken.pending.len() + new > DISTINCT_MAX {
            let detail =
                format!("this replica reads {DISTINCT_MAX} different topics: another replica may have room");
            return Err(full(Limit::DistinctTopics, detail));
        }
        if taken.all + topics.len() > SUBSCRIPTIONS_MAX {
            let detail = format!(
                "the readers of this replica have {SUBSCRIPTIONS_MAX} topics: another replica may have room"
            );
            return Err(full(Limit::Subscriptions, detail));
        }
        if let Some(network) = self.network {
            let of_network = taken.networks.get(&network).copied().unwrap_or_default();
            if of_network + topics.len() > SUBSCRIPTIONS_PER_ADDRESS_MAX {
                metrics::limit_reached(Limit::SubscriptionsPerAddress);
                let detail = format!(
                    "the connections from one address have at most {SUBSCRIPTIONS_PER_ADDRESS_MAX} topics: leave some first"
                );
                return Err(Refusal::too_many("too many topics from this address", detail, RETRY_SECONDS));
            }
            taken.networks.insert(network, of_network + topics.len());
        }
        taken.all += topics.len();
        self.count += topics.len();
        Ok(())
    }

    /// Releases `count` permits.
    pub(crate) fn give_back(&mut self, count: usize) {
        let count = count.min(self.count);
        self.count -= count;
        let mut taken = self.topics.taken.lock();
        taken.all -= count;
        if let Some(network) = self.network {
            release(&mut taken.networks, network, count);
        }
    }
}

impl Drop for TopicPermits {
    fn drop(&mut self) {
        if self.count > 0 {
            self.give_back(self.count);
        }
    }
}

impl Topics {
    #[cfg(test)]
    pub(crate) fn pending(&self) -> usize {
        self.taken.lock().pending.len()
    }
}

fn full(limit: Limit, detail: String) -> Refusal {
    metrics::limit_reached(limit);
    Refusal::unavailable("too many topics on this replica", detail, RETRY_SECONDS)
}

#[cfg(test)]
mod tests {
    use carillon_broker::{FanOut, Subscriptions};

    use super::*;

    fn topics(range: std::ops::Range<usize>) -> Vec<Audience> {
        range.map(|n| Audience::Topic(n.to_string())).collect()
    }

    #[test]
    fn one_address_and_all_readers_have_a_bound_and_permits_are_released() {
        let hub = Hub::new(FanOut::All, Subscriptions::default());
        let all = Arc::<Topics>::default();
        let at = |last: u8| Some(IpNet::from(std::net::IpAddr::from([192, 0, 2, last])));
        let mut readers = Vec::new();
        let take = |network, count| {
            let mut permits = TopicPermits::new(&all, network);
            permits
                .take(&hub, &topics(0..count))
                .map(|()| permits)
                .map_err(|refusal| refusal.status().as_u16())
        };
        for last in 0..10 {
            readers.push(take(at(last), 10_000).unwrap());
        }
        assert_eq!(take(at(11), 1).err(), Some(503), "all are taken");
        readers[0].give_back(1);
        assert_eq!(take(at(1), 1).err(), Some(429), "the address has its part");
        assert_eq!(take(at(1), 0).err(), None);
        readers.push(take(at(11), 1).unwrap());
        drop(readers);
        let taken = all.taken.lock();
        assert_eq!((taken.all, taken.networks.len()), (0, 0));
    }

    #[test]
    fn distinct_topics_have_a_bound_and_a_topic_with_a_reader_counts_once() {
        let hub = Hub::new(FanOut::All, Subscriptions::default());
        let mut permits = TopicPermits::new(&Arc::default(), None);
        permits.take(&hub, &topics(0..DISTINCT_MAX)).unwrap();
        hub.join(1, topics(0..DISTINCT_MAX).into(), &Arc::default());
        let status = |refused: Result<(), Refusal>| refused.err().map(|refusal| refusal.status().as_u16());
        assert_eq!(status(permits.take(&hub, &topics(DISTINCT_MAX..DISTINCT_MAX + 1))), Some(503));
        assert_eq!(status(permits.take(&hub, &topics(0..1))), None);
        assert_eq!(status(permits.take(&hub, &[Audience::Everyone])), None);
    }

    #[test]
    fn pending_topics_count_as_distinct() {
        let hub = Hub::new(FanOut::All, Subscriptions::default());
        let all = Arc::<Topics>::default();
        hub.join(1, topics(0..10).into(), &Arc::default());
        let mut pending: Vec<_> =
            topics(10..DISTINCT_MAX).into_iter().map(|topic| PendingTopic::new(&all, topic)).collect();
        let take = |topic| {
            let taken = TopicPermits::new(&all, None).take(&hub, &topics(topic..topic + 1));
            taken.err().map(|refusal| refusal.status().as_u16())
        };
        assert_eq!(take(DISTINCT_MAX), Some(503));
        assert_eq!((take(10), take(0)), (None, None), "a topic that others read or wait for is not distinct");
        pending.push(PendingTopic::new(&all, topics(10..11).remove(0)));
        assert_eq!(all.pending(), DISTINCT_MAX - 10);
        pending.truncate(1);
        assert_eq!((take(DISTINCT_MAX), all.pending()), (None, 1));
    }
}
