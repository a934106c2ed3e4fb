//! The engine inside one process. It does what the scripts do, in the same order, so that one suite
//! of contract tests and one set of random histories hold both.

mod faults;
mod listen;
mod queues;
pub(crate) mod store;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carillon_protocol::{Audience, Cursor, Position};
use tokio::sync::Notify;

use crate::history::{Reading, begin, merge};
use crate::limits::READ_MAX_ENTRIES;
use crate::route::{Route, route};
use crate::{Batch, BrokerError, Claimed, Dead, Event, FanOut, Fanout, History, Kind, Refused};

pub use faults::Faults;

use listen::Listener;
pub(crate) use store::{Step, Store};

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub(crate) struct MemoryEngine {
    clock: Clock,
    store: Mutex<Store>,
    listeners: Mutex<Vec<Listener>>,
    away: AtomicBool,
    back: Notify,
    lose_reply: AtomicBool,
}

impl MemoryEngine {
    pub(crate) fn new(clock: Clock) -> Self {
        let store = Mutex::new(Store::new(clock(), Position::ZERO));
        Self {
            clock,
            store,
            listeners: Mutex::default(),
            away: AtomicBool::new(false),
            back: Notify::new(),
            lose_reply: AtomicBool::new(false),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// A step that begins now.
    pub(crate) fn step<'a>(&self, appender: &'a str, fan_out: FanOut) -> Step<'a> {
        Step { appender, fan_out, now_ms: self.now_ms(), fanouts: vec![] }
    }

    pub(crate) fn store(&self) -> Result<MutexGuard<'_, Store>, BrokerError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(BrokerError::Away("taken away by a test".to_owned()));
        }
        Ok(self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, entries: &[Vec<u8>]) -> Result<u64, BrokerError> {
        let waiting = {
            let mut store = self.store()?;
            store.list.extend(entries.iter().cloned());
            store.list.len() as u64
        };
        self.wake();
        Ok(waiting)
    }

    fn wake(&self) {
        // Whoever hears a wake-up first is likely to win the race, so each time it is another one.
        let turn = |listeners: &mut [Listener]| listeners.rotate_left(listeners.len().min(1));
        turn(&mut self.listeners());
        self.send(&Event::Wake, |_| true);
    }

    /// The answer, unless a test has it lost.
    fn answer<T>(&self, answer: T) -> Result<T, BrokerError> {
        if self.lose_reply.swap(false, Ordering::SeqCst) {
            return Err(BrokerError::Away("done, but the answer was lost".to_owned()));
        }
        Ok(answer)
    }

    pub(crate) fn waiting(&self) -> Result<u64, BrokerError> {
        Ok(self.store()?.list.len() as u64)
    }

    pub(crate) fn claim(&self, replica: &str, fan_out: FanOut) -> Result<Batch, BrokerError> {
        let mut step = self.step(replica, fan_out);
        let mut store = self.store()?;
        store.rotate_ids(step.now_ms);
        let mut batch = Batch {
            epoch: store.epoch.clone(),
            waiting: 0,
            repeated: 0,
            refused: vec![],
            claimed: vec![],
            faults: vec![],
        };
        let mut on_their_way = vec![];
        for raw in store.take_batch() {
            let Route { audience, id, sent } = match route(&raw) {
                Ok(route) => route,
                Err(refusal) => {
                    let (reason, detail) = (refusal.reason.as_str().to_owned(), refusal.detail);
                    batch.refused.push(Refused { reason: reason.clone(), detail: detail.clone() });
                    store.bury(&Dead { reason, detail, claimed_by: replica.to_owned(), raw });
                    continue;
                }
            };
            if let Some(id) = id {
                if store.ids.iter().any(|ids| ids.contains(&id)) {
                    batch.repeated += 1;
                    continue;
                }
                store.ids[0].insert(id);
            }
            let stored = store.append(&mut step, Kind::Notification, &audience, raw);
            if let Some(sent) = sent {
                store.send(&mut step, &sent);
                on_their_way.push(sent);
            }
            batch.claimed.push(Claimed { audience, stored });
        }
        batch.waiting = store.list.len() as u64;
        for sent in on_their_way {
            let listeners = self.listeners_of(&Audience::User(sent.to.clone()));
            store.routed(&sent, if fan_out == FanOut::All { listeners } else { 0 });
        }
        self.publish(&store, step.fanouts);
        drop(store);
        self.answer(batch)
    }

    fn listeners_of(&self, audience: &Audience) -> u64 {
        self.listeners().iter().filter(|listener| listener.subscribed.contains_key(audience)).count() as u64
    }

    /// The store is held until everything is published, so that messages go out in the order of their positions.
    pub(crate) fn publish(&self, _held: &MutexGuard<'_, Store>, fanouts: Vec<Fanout>) {
        for fanout in fanouts {
            let audience = fanout.audience.clone();
            self.send(&Event::Fanout(fanout), |listener| listener.subscribed.contains_key(&audience));
        }
    }

    pub(crate) fn bury(&self, dead: &Dead) -> Result<(), BrokerError> {
        self.store()?.bury(dead);
        Ok(())
    }

    pub(crate) fn dead(&self) -> Result<Vec<Dead>, BrokerError> {
        Ok(self.store()?.dead.iter().cloned().collect())
    }

    pub(crate) fn tail(&self) -> Result<Cursor, BrokerError> {
        let store = self.store()?;
        Ok(Cursor { epoch: store.epoch.clone(), position: store.last })
    }

    pub(crate) fn history(
        &self,
        audiences: &[Audience],
        since: &Cursor,
        limit: usize,
    ) -> Result<History, BrokerError> {
        let store = self.store()?;
        let from = begin(since, &store.epoch, store.first);
        let (reached, parts) = store.read(audiences, from, limit.clamp(1, READ_MAX_ENTRIES));
        let reading = Reading {
            epoch: store.epoch.clone(),
            first: store.first,
            last: store.last,
            now_ms: (self.clock)(),
            reached,
            parts,
        };
        Ok(merge(since, from, reading))
    }
}
