//! The connections of a port: who may open one more, and whose is closed for it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pace::{ANSWER_PACE, Pace, READER_PACE, Taking};
use crate::counts::release;
use crate::{Latch, network};

/// Most connections of one address that are not readers, where nothing else is given.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 200;
/// Connections that are open beside those of readers: requests, and what waits for the next one.
const PLAIN_CONNECTIONS_MAX: usize = 1_024;
/// A connection that has asked before may wait this long until it has asked again. Proxies keep theirs for up to
/// two minutes; if this side closed first, it could be just when one sends what it cannot send twice.
const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// The same while more than half of the places are taken.
const CROWDED_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Whoever has not asked yet keeps the place this long, also when all are taken.
const ASKING_UNDISTURBED: Duration = Duration::from_secs(1);

/// How many connections a port holds.
#[derive(Clone, Debug)]
pub struct PlaceOptions {
    /// Of readers and others.
    pub all_max: usize,
    /// Of others than readers.
    pub plain_max: usize,
    /// Of others than readers, from one address.
    pub plain_per_address_max: usize,
    /// Networks whose connections are not counted by address: many clients are behind each.
    pub shared: Vec<IpNet>,
    /// Set while there is room.
    pub room: Option<Latch>,
    /// Called for each connection that reaches a limit.
    pub limit_reached: fn(PortLimit),
}

impl PlaceOptions {
    /// Room for so many readers, and for as many others as is usual.
    #[must_use]
    pub fn for_readers(readers_max: usize, limit_reached: fn(PortLimit)) -> Self {
        let local = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        Self {
            all_max: readers_max.saturating_add(PLAIN_CONNECTIONS_MAX),
            plain_max: PLAIN_CONNECTIONS_MAX,
            plain_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            // A proxy on this machine is at a local address.
            shared: local.into_iter().map(IpNet::from).collect(),
            room: None,
            limit_reached,
        }
    }
}

/// A limit of the connections of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortLimit {
    /// No place, or only that of another connection.
    Connections,
    /// No place for this address.
    ConnectionsPerAddress,
    /// The head of a request took too long.
    RequestTime,
    /// The peer took too little of what was written.
    Slow,
    /// The peer took nothing of what was written.
    Unread,
}

impl PortLimit {
    /// Its name, as metrics have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::RequestTime => "request_time",
            Self::Slow => "slow",
            Self::Unread => "unread",
        }
    }
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has not sent a whole request head yet, since then.
    Asking(Instant),
    /// A request is answered.
    Busy,
    /// The answer is made, and the peer still takes it.
    Taking,
    /// It waits for the next request, since then.
    Idle(Instant),
    /// It is a reader's.
    Reader,
}

impl Phase {
    /// How fast the peer has to take what is written to it.
    fn pace(self) -> Pace {
        if self == Self::Reader { READER_PACE } else { ANSWER_PACE }
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    Full,
    Address,
}

#[derive(Debug)]
pub(super) struct Places {
    options: PlaceOptions,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    open: HashMap<u64, Open>,
    plain: usize,
    networks: HashMap<IpNet, usize>,
    /// Those that may be closed for others, oldest first.
    asking: BTreeSet<(Instant, u64)>,
    idle: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Open {
    network: Option<IpNet>,
    phase: Phase,
    changed: Arc<Notify>,
}

/// The place of one connection. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    changed: Arc<Notify>,
    taking: Mutex<Option<Taking>>,
}

impl Places {
    pub(super) fn new(options: PlaceOptions) -> Arc<Self> {
        Arc::new(Self { options, table: Mutex::default() })
    }

    /// Takes a place for a new connection, if need be that of one that has nothing to do.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Place, NoPlace> {
        let PlaceOptions { plain_per_address_max, shared, .. } = &self.options;
        let peer = peer.to_canonical();
        let network = (!shared.iter().any(|network| network.contains(&peer))).then(|| network(peer));
        let mut table = self.table.lock();
        let of_network = network.and_then(|network| table.networks.get(&network)).copied();
        if of_network.unwrap_or_default() >= *plain_per_address_max {
            (self.options.limit_reached)(PortLimit::ConnectionsPerAddress);
            return Err(NoPlace::Address);
        }
        if self.is_full(&table) {
            (self.options.limit_reached)(PortLimit::Connections);
            let oldest = table.closable().ok_or(NoPlace::Full)?;
            table.remove(oldest);
        }
        table.last_id += 1;
        let (id, changed) = (table.last_id, Arc::<Notify>::default());
        let phase = Phase::Asking(Instant::now());
        table.open.insert(id, Open { network, phase, changed: Arc::clone(&changed) });
        table.add(id);
        Ok(Place { places: Arc::clone(self), id, changed, taking: Mutex::default() })
    }

    /// Whether one more would get a place.
    pub(super) fn has_room(&self) -> bool {
        let table = self.table.lock();
        !self.is_full(&table) || table.closable().is_some()
    }

    fn is_full(&self, table: &Table) -> bool {
        table.plain >= self.options.plain_max || table.open.len() >= self.options.all_max
    }
}

impl Table {
    /// The connection that is closed first for a new one.
    fn closable(&self) -> Option<u64> {
        let undisturbed = |since: &Instant| since.elapsed() < ASKING_UNDISTURBED;
        let asking = || self.asking.first().filter(|(since, _)| !undisturbed(since));
        self.idle.first().or_else(asking).map(|(_, id)| *id)
    }

    fn remove(&mut self, id: u64) {
        self.take_off(id);
        if let Some(open) = self.open.remove(&id) {
            open.changed.notify_one();
        }
    }

    /// Counts a connection as what it is now.
    fn add(&mut self, id: u64) {
        let Some(open) = self.open.get(&id) else { return };
        match open.phase {
            Phase::Asking(since) => self.asking.insert((since, id)),
            Phase::Idle(since) => self.idle.insert((since, id)),
            Phase::Busy | Phase::Taking => true,
            Phase::Reader => return,
        };
        self.plain += 1;
        if let Some(network) = open.network {
            *self.networks.entry(network).or_default() += 1;
        }
    }

    /// Counts it no more.
    fn take_off(&mut self, id: u64) {
        let Some(open) = self.open.get(&id) else { return };
        match open.phase {
            Phase::Asking(since) => self.asking.remove(&(since, id)),
            Phase::Idle(since) => self.idle.remove(&(since, id)),
            Phase::Busy | Phase::Taking => true,
            Phase::Reader => return,
        };
        self.plain -= 1;
        if let Some(network) = open.network {
            release(&mut self.networks, network, 1);
        }
    }
}

impl Place {
    /// Reports that the connection reached a limit.
    pub(super) fn limit_reached(&self, limit: PortLimit) {
        (self.places.options.limit_reached)(limit);
    }

    /// Notes what the connection does from now on.
    pub(super) fn set(&self, phase: Phase) {
        self.update(|_| phase);
    }

    /// Notes that bytes came: of a request's head, where none is answered.
    pub(super) fn received(&self) {
        self.update(|phase| match phase {
            Phase::Idle(_) => Phase::Asking(Instant::now()),
            other => other,
        });
    }

    /// Notes that the bytes which came were none of a head.
    pub(super) fn rested(&self) {
        self.update(|phase| match phase {
            Phase::Asking(_) => Phase::Idle(Instant::now()),
            other => other,
        });
    }

    /// Notes that the peer takes no more of what is written for now.
    pub(super) fn waits(&self) {
        self.update(|phase| match phase {
            Phase::Idle(_) => Phase::Taking,
            other => other,
        });
        let mut taking = self.taking.lock();
        if taking.is_none() {
            *taking = Some(Taking::new());
            self.changed.notify_one();
        }
    }

    /// Notes that the peer took so many bytes, and more is to be written.
    pub(super) fn took(&self, bytes: usize) {
        let Some(pace) = self.pace() else { return };
        if let Some(taking) = self.taking.lock().as_mut() {
            taking.took(bytes, &pace);
        }
    }

    /// Notes that the peer took all that was written.
    pub(super) fn took_all(&self) {
        *self.taking.lock() = None;
        self.update(|phase| match phase {
            Phase::Taking => Phase::Idle(Instant::now()),
            other => other,
        });
    }

    fn pace(&self) -> Option<Pace> {
        self.places.table.lock().open.get(&self.id).map(|open| open.phase.pace())
    }

    fn update(&self, next: impl FnOnce(Phase) -> Phase) {
        let mut table = self.places.table.lock();
        let Some(open) = table.open.get(&self.id) else { return };
        let (was, phase) = (open.phase, next(open.phase));
        if was != phase {
            table.take_off(self.id);
            if let Some(open) = table.open.get_mut(&self.id) {
                open.phase = phase;
            }
            table.add(self.id);
            drop(table);
            self.changed.notify_one();
        }
    }

    /// Waits until the phase changes or the place was given to another.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Until when the connection is waited for; an error when its time is over or its place is another's.
    pub(super) fn deadline(&self, request_timeout: Duration) -> Result<Option<Instant>, Over> {
        let table = self.places.table.lock();
        let Some(open) = table.open.get(&self.id) else { return Err(Over::Closed) };
        let (now, crowded_at) = (Instant::now(), self.places.options.plain_max / 2);
        match open.phase {
            Phase::Busy | Phase::Taking | Phase::Reader => {
                let until = self.taking.lock().as_ref().map(|taking| taking.since + open.phase.pace().within);
                if until.is_some_and(|until| until <= now) { Err(Over::NotTaken) } else { Ok(until) }
            }
            Phase::Asking(since) if since + request_timeout <= now => Err(Over::Slow),
            Phase::Asking(since) => Ok(Some(since + request_timeout)),
            Phase::Idle(since) => {
                let patience = if table.plain > crowded_at { CROWDED_IDLE_TIMEOUT } else { IDLE_TIMEOUT };
                // It may become crowded meanwhile.
                let next = (since + patience).min(now + CROWDED_IDLE_TIMEOUT);
                if since + patience <= now { Err(Over::Closed) } else { Ok(Some(next)) }
            }
        }
    }
}

/// Why a connection is not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Its request takes too long.
    Slow,
    /// Its peer takes what is written too slowly.
    NotTaken,
    /// It has nothing to do, and its place is wanted.
    Closed,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests;
