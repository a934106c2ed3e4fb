//! How much one client may have: readers at the same time, and publishes over time. Each limit is an option,
//! and reaching it is counted.

mod address;
mod guesses;
mod rate;
mod requests;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::request::Parts;
use carillon_service::counts::{count, release};
use carillon_service::{CONNECTIONS_PER_ADDRESS_MAX, network};
use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use tokio::time::Instant;

use crate::metrics::{self, Limit};
use crate::refusal::Refusal;
use address::{Client, client};
use rate::{Buckets, Rate};
use requests::Requests;
pub(crate) use requests::in_bounds;

/// A client that has as many readers as it may is asked to wait for so many seconds: one of them has to leave.
const READER_RETRY_SECONDS: u64 = 5;

/// A publish counts as one, and as one more for each so many bytes.
const BYTES_PER_PUBLISH: usize = 4_096;

/// How much one replica takes. Each is an option and an environment variable.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits of each replica")]
pub struct LimitOptions {
    /// Most readers of this replica at the same time
    #[arg(long, env, default_value_t = 10_000)]
    pub readers_max: usize,
    /// Most readers of one user on this replica
    #[arg(long, env, default_value_t = 100)]
    pub readers_per_user_max: usize,
    /// Most readers from one address on this replica. An IPv6 address counts by its /64
    #[arg(long, env, default_value_t = 1_000)]
    pub readers_per_address_max: usize,
    /// Most connections of one address that are not readers, and most of its requests that are answered at the same time
    #[arg(long, env, default_value_t = CONNECTIONS_PER_ADDRESS_MAX)]
    pub connections_per_address_max: usize,
    /// Pages of history that one address may read per second in the long run
    #[arg(long, env, default_value = "10")]
    pub pages_per_address: NonZeroU32,
    /// Pages of history that one address may read in a row
    #[arg(long, env, default_value = "100")]
    pub page_burst_per_address: NonZeroU32,
    /// Publishes per second in the long run with one API key, or of all applications that sign. Each full 4,096 bytes of
    /// a publish count as one more
    #[arg(long, env, default_value = "1000")]
    pub publishes_per_key: NonZeroU32,
    /// Publishes in a row with one API key, or of all applications that sign
    #[arg(long, env, default_value = "5000")]
    pub publish_burst_per_key: NonZeroU32,
    /// Publishes per second in the long run of one user, or of one address where no key is needed. Jobs that they start and
    /// messages to the application count too, and bytes as above
    #[arg(long, env, default_value = "10")]
    pub publishes_per_user: NonZeroU32,
    /// Publishes in a row of one user or address
    #[arg(long, env, default_value = "100")]
    pub publish_burst_per_user: NonZeroU32,
    /// Networks of proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8, separated by commas
    #[arg(long, env, value_delimiter = ',', value_parser = address::parse_network)]
    pub trusted_proxies: Vec<IpNet>,
    /// Where only proxies reach this replica: which address from the right of X-Forwarded-For is the client's. With one proxy
    /// in front of the replica it is 1
    #[arg(long, env)]
    pub trusted_proxy_hops: Option<NonZeroUsize>,
}

impl Default for LimitOptions {
    /// What the options are where nobody sets them.
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            readers_max: 10_000,
            readers_per_user_max: 100,
            readers_per_address_max: 1_000,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
            pages_per_address: number(10),
            page_burst_per_address: number(100),
            publishes_per_key: number(1_000),
            publish_burst_per_key: number(5_000),
            publishes_per_user: number(10),
            publish_burst_per_user: number(100),
            trusted_proxies: Vec::new(),
            trusted_proxy_hops: None,
        }
    }
}

/// What all clients are counted by whose address is not known: no client has a network of this size.
const UNKNOWN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// Whether what a client is counted by is its own, and not that of all whose address is not known or of this machine.
pub(crate) fn is_told_apart(network: Option<IpNet>) -> bool {
    network.is_some_and(|network| network != UNKNOWN.into())
}

/// Who publishes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Publisher {
    /// The holder of an API key, by its place among the keys.
    Key(usize),
    /// The applications that sign.
    Signers,
    /// A signed-in user.
    User(String),
    /// Somebody, where no key is needed.
    Network(IpNet),
}

/// The limits of a replica, and what counts against them now.
pub(crate) struct Limits {
    options: LimitOptions,
    readers: Mutex<Readers>,
    publishes: Mutex<Buckets<Publisher>>,
    pages: Mutex<Buckets<IpNet>>,
    /// Wrong keys.
    guesses: Mutex<Buckets<Option<IpNet>>>,
    /// Those that are answered now.
    requests: Arc<Requests>,
}

#[derive(Default)]
struct Readers {
    all: usize,
    users: HashMap<String, usize>,
    networks: HashMap<IpNet, usize>,
}

/// A reader's place within the limits. Dropping it gives it back.
pub(crate) struct Place {
    limits: Arc<Limits>,
    user: Option<String>,
    network: Option<IpNet>,
}

impl Limits {
    pub(crate) fn new(options: LimitOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            readers: Mutex::default(),
            publishes: Mutex::default(),
            pages: Mutex::default(),
            guesses: Mutex::default(),
            requests: Arc::default(),
        })
    }

    /// What the client that makes this request is counted by; `None` for programs of this machine, which are not counted.
    /// All clients whose address is not known are counted as one.
    pub(crate) fn network(&self, parts: &Parts) -> Option<IpNet> {
        match self.client(parts) {
            Client::At(address) => Some(network(address)),
            Client::Unknown => Some(UNKNOWN.into()),
            Client::Local => None,
        }
    }

    /// Whether what a request is counted by is its own, and not that of all whose address is not known.
    pub(crate) fn is_told_apart(&self, parts: &Parts) -> bool {
        is_told_apart(self.network(parts))
    }

    fn client(&self, parts: &Parts) -> Client {
        client(parts, &self.options.trusted_proxies, self.options.trusted_proxy_hops)
    }

    /// Takes a place for a reader.
    pub(crate) fn admit(
        self: &Arc<Self>,
        user: Option<&str>,
        network: Option<IpNet>,
    ) -> Result<Place, Refusal> {
        let LimitOptions { readers_max, readers_per_user_max, readers_per_address_max, .. } = self.options;
        let mut readers = self.readers();
        if readers.all >= readers_max {
            metrics::limit_reached(Limit::Readers);
            let detail = format!("it holds {readers_max} readers: another replica may have room");
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "replica full", detail));
        }
        let full = |limit, title, detail: String| {
            metrics::limit_reached(limit);
            Err(Refusal::too_many(title, detail, READER_RETRY_SECONDS))
        };
        if user.is_some_and(|user| count(&readers.users, user) >= readers_per_user_max) {
            let detail = format!("a user has at most {readers_per_user_max} connections: close one first");
            return full(Limit::ReadersPerUser, "too many connections of this user", detail);
        }
        if network.is_some_and(|network| count(&readers.networks, &network) >= readers_per_address_max) {
            let detail =
                format!("an address has at most {readers_per_address_max} connections: close one first");
            return full(Limit::ReadersPerAddress, "too many connections from this address", detail);
        }
        readers.all += 1;
        let user = user.map(str::to_owned);
        user.iter().for_each(|user| *readers.users.entry(user.clone()).or_default() += 1);
        network.iter().for_each(|network| *readers.networks.entry(*network).or_default() += 1);
        drop(readers);
        Ok(Place { limits: Arc::clone(self), user, network })
    }

    /// Counts what a reader sends: against the user, else against the address where it is known.
    pub(crate) fn publish_by(
        &self,
        user: Option<&str>,
        network: Option<IpNet>,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let publisher = match user {
            Some(user) => Some(Publisher::User(user.to_owned())),
            None => network.map(Publisher::Network),
        };
        publisher.map_or(Ok(()), |publisher| self.publish(&publisher, bytes))
    }

    /// Counts a page of history: reading one costs Redis more than asking for it costs the client.
    pub(crate) fn page(&self, network: Option<IpNet>) -> Result<(), Refusal> {
        let Some(network) = network else { return Ok(()) };
        let rate = Rate::per_second(self.options.pages_per_address, self.options.page_burst_per_address);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.take(&network, 1, rate, Instant::now()).map_err(|wait| {
            metrics::limit_reached(Limit::HistoryRate);
            let seconds = whole_seconds(wait);
            let detail = format!("one address may read {rate}; try again in {seconds} s");
            Refusal::too_many("too many pages of history", detail, seconds)
        })
    }

    /// Counts one publish of so many bytes.
    pub(crate) fn publish(&self, publisher: &Publisher, bytes: usize) -> Result<(), Refusal> {
        let options = &self.options;
        let (limit, rate) = match publisher {
            Publisher::Key(_) | Publisher::Signers => (
                Limit::PublishesPerKey,
                Rate::per_second(options.publishes_per_key, options.publish_burst_per_key),
            ),
            Publisher::User(_) | Publisher::Network(_) => (
                Limit::PublishesPerUser,
                Rate::per_second(options.publishes_per_user, options.publish_burst_per_user),
            ),
        };
        let mut publishes = self.publishes.lock().unwrap_or_else(PoisonError::into_inner);
        let cost = u32::try_from(1 + bytes / BYTES_PER_PUBLISH).unwrap_or(u32::MAX);
        publishes.take(publisher, cost, rate, Instant::now()).map_err(|wait| {
            metrics::limit_reached(limit);
            let seconds = whole_seconds(wait);
            let detail = format!(
                "at most {rate}, where each {BYTES_PER_PUBLISH} bytes count as one more; try again in {seconds} s"
            );
            Refusal::too_many("too many notifications", detail, seconds)
        })
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rounded up: whoever comes back then is let through.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut readers = self.limits.readers();
        readers.all -= 1;
        if let Some(user) = self.user.take() {
            release(&mut readers.users, user, 1);
        }
        if let Some(network) = self.network {
            release(&mut readers.networks, network, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<IpNet> {
        Some(address::parse_network(address).unwrap())
    }

    fn limits() -> Arc<Limits> {
        Limits::new(LimitOptions {
            readers_max: 4,
            readers_per_user_max: 2,
            readers_per_address_max: 3,
            ..LimitOptions::default()
        })
    }

    fn status(admitted: Result<Place, Refusal>) -> Option<u16> {
        admitted.err().map(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn a_place_is_given_back_whoever_had_it() {
        let limits = limits();
        let (here, there) = (at("192.0.2.1"), at("192.0.2.2"));
        let mut places = vec![];
        for (user, from) in [(Some("eve"), here), (Some("eve"), here), (None, here)] {
            places.push(limits.admit(user, from).ok().unwrap());
        }
        assert_eq!(status(limits.admit(Some("eve"), there)), Some(429), "the user's");
        assert_eq!(status(limits.admit(Some("bob"), here)), Some(429), "the address'");
        places.push(limits.admit(None, there).ok().unwrap());
        assert_eq!(status(limits.admit(None, at("192.0.2.3"))), Some(503), "the replica's");
        places.clear();
        let readers = limits.readers();
        assert_eq!((readers.all, readers.users.len(), readers.networks.len()), (0, 0, 0));
    }
}
