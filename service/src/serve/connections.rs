//! The open connections of a port: their bounds, and which one is closed for a new one.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pace::{ANSWER_PACE, Pace, Progress, READER_PACE};
use crate::counts::release;
use crate::{Latch, network};

/// Default of the connections of one address that are not readers.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 200;
/// Maximum connections that are not readers: requests, and idle ones.
const PLAIN_CONNECTIONS_MAX: usize = 1_024;
/// How long a connection may be idle between two requests. Proxies keep theirs for up to two minutes; if this side closed
/// first, a request that cannot be repeated might be in flight.
const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// The same while more than half of the connections are used.
const CROWDED_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a new connection without a request is kept, even if all are used.
const ASKING_UNDISTURBED: Duration = Duration::from_secs(1);

/// The bounds of connections on a port.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Maximum of all connections.
    pub all_max: usize,
    /// Maximum of connections that are not readers.
    pub plain_max: usize,
    /// Maximum of connections that are not readers, from one address.
    pub plain_per_address_max: usize,
    /// Networks whose connections are not counted by address, since each stands for many clients.
    pub shared: Vec<IpNet>,
    /// Set while there is room for a connection.
    pub room: Option<Latch>,
    /// Called for each connection that reaches a limit.
    pub limit_reached: fn(PortLimit),
}

impl ConnectionOptions {
    /// Returns the bounds for this many readers, and the default number of other connections.
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
    /// All connections are used, or an idle one was closed for a new one.
    Connections,
    /// All connections of this address are used.
    ConnectionsPerAddress,
    /// The head of a request took too long.
    RequestTime,
    /// The peer read too slowly.
    Slow,
    /// The peer read nothing.
    Unread,
}

impl PortLimit {
    /// Returns the name of the limit in metrics.
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

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has not sent a complete request head yet, since then.
    ReadingHead(Instant),
    /// Its request is being answered.
    Busy,
    /// The response is complete, and the peer still reads it.
    Draining,
    /// It waits for the next request, since then.
    Idle(Instant),
    /// It belongs to a reader.
    Reader,
}

impl Phase {
    /// Returns the rate at which the peer has to read.
    fn pace(self) -> Pace {
        if self == Self::Reader { READER_PACE } else { ANSWER_PACE }
    }
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Address,
}

#[derive(Debug)]
pub(super) struct Connections {
    options: ConnectionOptions,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    open: HashMap<u64, Open>,
    plain: usize,
    networks: HashMap<IpNet, usize>,
    /// The connections that may be closed for others, oldest first.
    reading_head: BTreeSet<(Instant, u64)>,
    idle: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Open {
    network: Option<IpNet>,
    phase: Phase,
    changed: Arc<Notify>,
}

/// The permit of one connection. Dropping it releases it.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    connections: Arc<Connections>,
    id: u64,
    changed: Arc<Notify>,
    progress: Mutex<Option<Progress>>,
}

impl Connections {
    pub(super) fn new(options: ConnectionOptions) -> Arc<Self> {
        Arc::new(Self { options, table: Mutex::default() })
    }

    /// Takes a permit for a new connection, if needed by closing an idle one.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Result<ConnectionPermit, Refused> {
        let ConnectionOptions { plain_per_address_max, shared, .. } = &self.options;
        let peer = peer.to_canonical();
        let network = (!shared.iter().any(|network| network.contains(&peer))).then(|| network(peer));
        let mut table = self.table.lock();
        let of_network = network.and_then(|network| table.networks.get(&network)).copied();
        if of_network.unwrap_or_default() >= *plain_per_address_max {
            (self.options.limit_reached)(PortLimit::ConnectionsPerAddress);
            return Err(Refused::Address);
        }
        if self.is_full(&table) {
            (self.options.limit_reached)(PortLimit::Connections);
            let oldest = table.closable().ok_or(Refused::Full)?;
            table.remove(oldest);
        }
        table.last_id += 1;
        let (id, changed) = (table.last_id, Arc::<Notify>::default());
        let phase = Phase::ReadingHead(Instant::now());
        table.open.insert(id, Open { network, phase, changed: Arc::clone(&changed) });
        table.add(id);
        Ok(ConnectionPermit { connections: Arc::clone(self), id, changed, progress: Mutex::default() })
    }

    /// Whether another connection would be accepted.
    pub(super) fn has_room(&self) -> bool {
        let table = self.table.lock();
        !self.is_full(&table) || table.closable().is_some()
    }

    fn is_full(&self, table: &Table) -> bool {
        table.plain >= self.options.plain_max || table.open.len() >= self.options.all_max
    }
}

impl Table {
    /// Returns the connection that is closed first for a new one.
    fn closable(&self) -> Option<u64> {
        let undisturbed = |since: &Instant| since.elapsed() < ASKING_UNDISTURBED;
        let reading_head = || self.reading_head.first().filter(|(since, _)| !undisturbed(since));
        self.idle.first().or_else(reading_head).map(|(_, id)| *id)
    }

    fn remove(&mut self, id: u64) {
        self.take_off(id);
        if let Some(open) = self.open.remove(&id) {
            open.changed.notify_one();
        }
    }

    /// Adds a connection to the counts of its phase.
    fn add(&mut self, id: u64) {
        let Some(open) = self.open.get(&id) else { return };
        match open.phase {
            Phase::ReadingHead(since) => self.reading_head.insert((since, id)),
            Phase::Idle(since) => self.idle.insert((since, id)),
            Phase::Busy | Phase::Draining => true,
            Phase::Reader => return,
        };
        self.plain += 1;
        if let Some(network) = open.network {
            *self.networks.entry(network).or_default() += 1;
        }
    }

    /// Removes a connection from the counts of its phase.
    fn take_off(&mut self, id: u64) {
        let Some(open) = self.open.get(&id) else { return };
        match open.phase {
            Phase::ReadingHead(since) => self.reading_head.remove(&(since, id)),
            Phase::Idle(since) => self.idle.remove(&(since, id)),
            Phase::Busy | Phase::Draining => true,
            Phase::Reader => return,
        };
        self.plain -= 1;
        if let Some(network) = open.network {
            release(&mut self.networks, network, 1);
        }
    }
}

impl ConnectionPermit {
    /// Reports that the connection reached a limit.
    pub(super) fn limit_reached(&self, limit: PortLimit) {
        (self.connections.options.limit_reached)(limit);
    }

    /// Sets the phase of the connection.
    pub(super) fn set(&self, phase: Phase) {
        self.update(|_| phase);
    }

    /// Records received bytes, which belong to a request's head unless a request is being answered.
    pub(super) fn received(&self) {
        self.update(|phase| match phase {
            Phase::Idle(_) => Phase::ReadingHead(Instant::now()),
            other => other,
        });
    }

    /// Records that the received bytes did not belong to a head.
    pub(super) fn rested(&self) {
        self.update(|phase| match phase {
            Phase::ReadingHead(_) => Phase::Idle(Instant::now()),
            other => other,
        });
    }

    /// Records that the peer does not read at the moment.
    pub(super) fn waits(&self) {
        self.update(|phase| match phase {
            Phase::Idle(_) => Phase::Draining,
            other => other,
        });
        let mut progress = self.progress.lock();
        if progress.is_none() {
            *progress = Some(Progress::new());
            self.changed.notify_one();
        }
    }

    /// Records that the peer has read bytes, and more is to be written.
    pub(super) fn took(&self, bytes: usize) {
        let Some(pace) = self.pace() else { return };
        if let Some(progress) = self.progress.lock().as_mut() {
            progress.took(bytes, &pace);
        }
    }

    /// Records that the peer has read everything.
    pub(super) fn took_all(&self) {
        *self.progress.lock() = None;
        self.update(|phase| match phase {
            Phase::Draining => Phase::Idle(Instant::now()),
            other => other,
        });
    }

    fn pace(&self) -> Option<Pace> {
        self.connections.table.lock().open.get(&self.id).map(|open| open.phase.pace())
    }

    fn update(&self, next: impl FnOnce(Phase) -> Phase) {
        let mut table = self.connections.table.lock();
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

    /// Waits until the phase changes or the connection has to close for another.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns the deadline of the connection; an error when it has passed or the connection has to close for another.
    pub(super) fn deadline(&self, request_timeout: Duration) -> Result<Option<Instant>, Expired> {
        let table = self.connections.table.lock();
        let Some(open) = table.open.get(&self.id) else { return Err(Expired::Closed) };
        let (now, crowded_at) = (Instant::now(), self.connections.options.plain_max / 2);
        match open.phase {
            Phase::Busy | Phase::Draining | Phase::Reader => {
                let until =
                    self.progress.lock().as_ref().map(|progress| progress.since + open.phase.pace().within);
                if until.is_some_and(|until| until <= now) { Err(Expired::Unread) } else { Ok(until) }
            }
            Phase::ReadingHead(since) if since + request_timeout <= now => Err(Expired::Slow),
            Phase::ReadingHead(since) => Ok(Some(since + request_timeout)),
            Phase::Idle(since) => {
                let idle_timeout = if table.plain > crowded_at { CROWDED_IDLE_TIMEOUT } else { IDLE_TIMEOUT };
                // The port may become crowded in the meantime.
                let next = (since + idle_timeout).min(now + CROWDED_IDLE_TIMEOUT);
                if since + idle_timeout <= now { Err(Expired::Closed) } else { Ok(Some(next)) }
            }
        }
    }
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Its request takes too long.
    Slow,
    /// Its peer reads too slowly.
    Unread,
    /// It is idle, and another connection needs the room.
    Closed,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.table.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests;
