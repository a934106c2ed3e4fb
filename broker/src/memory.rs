//! The engine inside one process. It does what the scripts do, in the same order, so that one suite
//! of contract tests and one set of random histories hold both.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carillon_protocol::{Audience, Cursor, Position};
use tokio::sync::{Notify, mpsc};

use crate::event::{Generations, unconfirmed};
use crate::history::{Part, Reading, begin, merge};
use crate::limits::{
    BATCH_MAX_BYTES, BATCH_MAX_ENTRIES, DEAD_MAX_ENTRIES, DEAD_RAW_MAX_BYTES, HISTORY_MAX_ENTRIES,
    IDS_KEEP_MS, IDS_MAX, MEMORY_LISTENER_MAX_MESSAGES, READ_MAX_BYTES, READ_MAX_ENTRIES, history_age_ms,
};
use crate::route::{Route, route};
use crate::{
    Batch, BrokerError, Claimed, Dead, Event, FanOut, Fanout, History, Refused, Stored, Subscriptions,
};

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

/// What Redis would keep. A clone of it is what an earlier state is restored from.
#[derive(Clone)]
struct Store {
    epoch: String,
    first: Position,
    last: Position,
    /// The next entry to be claimed is in front.
    list: VecDeque<Vec<u8>>,
    ids: [HashSet<String>; 2],
    ids_since_ms: u64,
    histories: BTreeMap<Audience, Kept>,
    dead: VecDeque<Dead>,
}

#[derive(Clone, Default)]
struct Kept {
    entries: VecDeque<(String, Stored)>,
    tail: Position,
}

struct Listener {
    events: mpsc::Sender<Event>,
    subscribed: Generations,
}

impl Store {
    fn new(now_ms: u64, last: Position) -> Self {
        let first = last.next(now_ms);
        Self {
            epoch: format!("{:016x}", fastrand::u64(..)),
            first,
            last: first,
            list: VecDeque::new(),
            ids: [HashSet::new(), HashSet::new()],
            ids_since_ms: now_ms,
            histories: BTreeMap::new(),
            dead: VecDeque::new(),
        }
    }

    fn bury(&mut self, dead: &Dead) {
        let raw = dead.raw[..dead.raw.len().min(DEAD_RAW_MAX_BYTES)].to_vec();
        self.dead.push_back(Dead { raw, ..dead.clone() });
        if self.dead.len() > DEAD_MAX_ENTRIES {
            self.dead.pop_front();
        }
    }

    fn take_batch(&mut self) -> Vec<Vec<u8>> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX_ENTRIES && bytes < BATCH_MAX_BYTES {
            let Some(raw) = self.list.pop_front() else { break };
            bytes += raw.len();
            batch.push(raw);
        }
        batch
    }

    fn rotate_ids(&mut self, now_ms: u64) {
        if now_ms >= self.ids_since_ms + IDS_KEEP_MS || self.ids[0].len() as u64 >= IDS_MAX / 2 {
            self.ids.swap(0, 1);
            self.ids[0].clear();
            self.ids_since_ms = now_ms;
        }
    }

    /// Gives an entry its position and, where its audience has one, its place in history.
    fn place(
        &mut self,
        audience: &Audience,
        replica: &str,
        raw: Vec<u8>,
        now_ms: u64,
        keeps: bool,
    ) -> Stored {
        let age_ms = history_age_ms(audience).filter(|_| keeps);
        let prev = age_ms.and_then(|_| self.histories.get(audience)).map_or(Position::ZERO, |kept| kept.tail);
        self.last = self.last.max(prev).next(now_ms);
        let stored = Stored { position: self.last, prev, raw };
        if let Some(age_ms) = age_ms {
            let kept = self.histories.entry(audience.clone()).or_default();
            kept.entries.push_back((replica.to_owned(), stored.clone()));
            kept.tail = stored.position;
            while kept.entries.len() > HISTORY_MAX_ENTRIES
                || kept
                    .entries
                    .front()
                    .is_some_and(|(_, oldest)| oldest.position.ms < now_ms.saturating_sub(age_ms))
            {
                kept.entries.pop_front();
            }
        }
        stored
    }
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

    fn store(&self) -> Result<MutexGuard<'_, Store>, BrokerError> {
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
        // Whoever hears a wake-up first is likely to win the race, so each time it is another one.
        let turn = |listeners: &mut [Listener]| listeners.rotate_left(listeners.len().min(1));
        turn(&mut self.listeners());
        self.send(&Event::Wake, |_| true);
        Ok(waiting)
    }

    /// Hands an event to the listeners that want it. One that is full is cut, as Redis cuts a slow subscriber.
    fn send(&self, event: &Event, wants: impl Fn(&Listener) -> bool) {
        self.listeners()
            .retain(|listener| !wants(listener) || listener.events.try_send(event.clone()).is_ok());
    }

    pub(crate) fn waiting(&self) -> Result<u64, BrokerError> {
        Ok(self.store()?.list.len() as u64)
    }

    pub(crate) fn claim(&self, replica: &str, fan_out: FanOut) -> Result<Batch, BrokerError> {
        let now_ms = (self.clock)();
        let keeps = fan_out == FanOut::All;
        // Held until everything is published, so that messages go out in the order of their positions.
        let mut store = self.store()?;
        store.rotate_ids(now_ms);
        let mut batch =
            Batch { epoch: store.epoch.clone(), waiting: 0, repeated: 0, refused: vec![], claimed: vec![] };
        let mut fanouts: Vec<Fanout> = Vec::new();
        for raw in store.take_batch() {
            let Route { audience, id } = match route(&raw) {
                Ok(route) => route,
                Err(refusal) => {
                    let reason = refusal.reason.as_str().to_owned();
                    store.bury(&Dead {
                        reason: reason.clone(),
                        detail: refusal.detail.clone(),
                        claimed_by: replica.to_owned(),
                        raw,
                    });
                    batch.refused.push(Refused { reason, detail: refusal.detail });
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
            let stored = store.place(&audience, replica, raw, now_ms, keeps);
            match fanouts.last_mut().filter(|fanout| fanout.audience == audience) {
                Some(fanout) => fanout.entries.push(stored.clone()),
                None => fanouts.push(Fanout {
                    audience: audience.clone(),
                    epoch: store.epoch.clone(),
                    claimed_by: replica.to_owned(),
                    entries: vec![stored.clone()],
                }),
            }
            batch.claimed.push(Claimed { audience, stored });
        }
        batch.waiting = store.list.len() as u64;
        if keeps {
            for fanout in fanouts {
                let audience = fanout.audience.clone();
                self.send(&Event::Fanout(fanout), |listener| listener.subscribed.contains_key(&audience));
            }
        }
        drop(store);
        if self.lose_reply.swap(false, Ordering::SeqCst) {
            return Err(BrokerError::Away("done, but the answer was lost".to_owned()));
        }
        Ok(batch)
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
        let max_bytes = READ_MAX_BYTES / audiences.len().max(1);
        let parts = audiences
            .iter()
            .map(|audience| part(&store, audience, from, limit.min(READ_MAX_ENTRIES), max_bytes))
            .collect();
        let reading = Reading {
            epoch: store.epoch.clone(),
            first: store.first,
            last: store.last,
            now_ms: (self.clock)(),
            parts,
        };
        Ok(merge(since, from, reading))
    }

    pub(crate) async fn listen(&self, subscriptions: &Subscriptions, mut on: impl FnMut(Event)) {
        loop {
            let back = self.back.notified();
            if !self.away.load(Ordering::SeqCst) {
                let (sender, mut events) = mpsc::channel(MEMORY_LISTENER_MAX_MESSAGES);
                let key = sender.downgrade();
                self.listeners().push(Listener { events: sender, subscribed: Generations::new() });
                on(Event::Up);
                let is_this = |listener: &Listener| {
                    key.upgrade().is_some_and(|ours| ours.same_channel(&listener.events))
                };
                self.follow(subscriptions, &is_this, &mut on);
                loop {
                    tokio::select! {
                        event = events.recv() => match event {
                            Some(event) => on(event),
                            None => break,
                        },
                        () = subscriptions.changed() => self.follow(subscriptions, &is_this, &mut on),
                    }
                }
                on(Event::Down);
            } else {
                back.await;
            }
        }
    }

    fn follow(
        &self,
        subscriptions: &Subscriptions,
        is_this: &impl Fn(&Listener) -> bool,
        on: &mut impl FnMut(Event),
    ) {
        let new: Vec<_> = {
            let mut listeners = self.listeners();
            let Some(listener) = listeners.iter_mut().find(|listener| is_this(listener)) else { return };
            let wanted = subscriptions.wanted();
            let new = unconfirmed(&wanted, &listener.subscribed);
            listener.subscribed = wanted;
            new
        };
        if let (false, Ok(tail)) = (new.is_empty(), self.tail()) {
            on(Event::Subscribed { audiences: new, tail });
        }
    }
}

/// What read.lua does for one history.
fn part(store: &Store, audience: &Audience, from: Position, limit: usize, max_bytes: usize) -> Part {
    let mut part = Part { audience: audience.clone(), entries: Vec::new(), full: false, tail: None };
    let Some(kept) = store.histories.get(audience) else { return part };
    part.tail = Some(kept.tail);
    let start = kept.entries.partition_point(|(_, entry)| entry.position <= from);
    let mut bytes = 0;
    for (claimed_by, stored) in kept.entries.iter().skip(start) {
        bytes += stored.raw.len();
        if part.entries.len() == limit || (bytes > max_bytes && !part.entries.is_empty()) {
            break;
        }
        part.entries.push((claimed_by.clone(), stored.clone()));
    }
    part.full = part.entries.len() == limit || kept.entries.len() > start + part.entries.len();
    part
}

/// The levers with which tests break the in-memory engine.
#[derive(Clone)]
pub struct Faults(Arc<MemoryEngine>);

impl Faults {
    pub(crate) fn new(engine: Arc<MemoryEngine>) -> Self {
        Self(engine)
    }

    /// Ends every subscription, as a killed connection does.
    pub fn cut_subscribers(&self) {
        self.0.listeners().clear();
    }

    /// The next claim is carried out and its answer is lost.
    pub fn lose_next_claim_reply(&self) {
        self.0.lose_reply.store(true, Ordering::SeqCst);
    }

    /// Nothing answers until [`Faults::come_back`].
    pub fn go_away(&self) {
        self.0.away.store(true, Ordering::SeqCst);
        self.cut_subscribers();
    }

    /// Answers again.
    pub fn come_back(&self) {
        self.0.away.store(false, Ordering::SeqCst);
        self.0.back.notify_waiters();
    }

    /// All data is lost, as after a restart without persistence.
    pub fn forget(&self) {
        self.replace(|store, now_ms| *store = Store::new(now_ms, Position::ZERO));
    }

    /// A lever that brings back the data as they are now, under a new epoch, as a promoted replica that lagged does.
    pub fn remember(&self) -> impl FnOnce() + use<> {
        let faults = self.clone();
        let earlier = self.0.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
        move || {
            faults.replace(|store, now_ms| {
                let fresh = Store::new(now_ms, earlier.last);
                *store = Store { epoch: fresh.epoch, first: fresh.first, last: fresh.last, ..earlier };
            });
        }
    }

    /// Removes all but the newest `keep` entries of an audience's history.
    pub fn trim(&self, audience: &Audience, keep: usize) {
        let mut store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = store.histories.get_mut(audience) {
            let excess = kept.entries.len().saturating_sub(keep);
            kept.entries.drain(..excess);
        }
    }

    fn replace(&self, change: impl FnOnce(&mut Store, u64)) {
        change(&mut self.0.store.lock().unwrap_or_else(PoisonError::into_inner), (self.0.clock)());
        self.cut_subscribers();
    }
}
