//! Limits of one client: readers at the same time, and publishes over time. Each limit is an option, and reaching it is
//! counted.

mod address;
mod guesses;
mod requests;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::request::Parts;
use carillon_service::counts::{count, release};
use carillon_service::{CONNECTIONS_PER_ADDRESS_MAX, network};
use clap::Args;
use ipnet::{IpNet, Ipv4Net};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::rate::{Buckets, Rate};
use crate::metrics::{self, Limit};
use crate::refusal::Refusal;
use address::{Client, client};
use requests::Requests;
pub(crate) use requests::limit_requests;

/// The `Retry-After` of a client with the maximum of readers, in seconds: one of its readers has to leave first.
const READER_RETRY_SECONDS: u64 = 5;

/// A publish counts as one, and as one more for each of these bytes.
const BYTES_PER_PUBLISH: usize = 4_096;

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
    /// The defaults of the options.
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

/// The network that all clients without a known address count against; no client has a network of this size.
const UNKNOWN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);

/// Whether a client counts against its own network, and not against that of all unknown addresses or against none.
pub(crate) fn is_told_apart(network: Option<IpNet>) -> bool {
    network.is_some_and(|network| network != UNKNOWN.into())
}

/// The publisher that a publish counts against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Publisher {
    /// The holder of an API key, by the index of the key.
    Key(usize),
    /// The applications that sign.
    Signers,
    /// A signed-in user.
    User(String),
    /// A client where no key is needed.
    Network(IpNet),
}

/// The limits of a replica, and the current counts.
pub(crate) struct Limits {
    options: LimitOptions,
    readers: Mutex<Readers>,
    publishes: Mutex<Buckets<Publisher>>,
    pages: Mutex<Buckets<IpNet>>,
    /// Wrong keys.
    guesses: Mutex<Buckets<Option<IpNet>>>,
    /// Requests that are being answered.
    requests: Arc<Requests>,
}

#[derive(Default)]
struct Readers {
    all: usize,
    users: HashMap<String, usize>,
    networks: HashMap<IpNet, usize>,
}

/// A reader's permit. Dropping it releases it.
pub(crate) struct ReaderPermit {
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

    /// Returns the network that the client of a request counts against; `None` for programs on this machine, which are not
    /// counted. All clients without a known address count as one.
    pub(crate) fn network(&self, parts: &Parts) -> Option<IpNet> {
        match self.client(parts) {
            Client::At(address) => Some(network(address)),
            Client::Unknown => Some(UNKNOWN.into()),
            Client::Local => None,
        }
    }

    /// Whether a request counts against its own network, and not against that of all unknown addresses.
    pub(crate) fn has_own_network(&self, parts: &Parts) -> bool {
        is_told_apart(self.network(parts))
    }

    fn client(&self, parts: &Parts) -> Client {
        client(parts, &self.options.trusted_proxies, self.options.trusted_proxy_hops)
    }

    /// Takes a permit for a reader.
    pub(crate) fn admit(
        self: &Arc<Self>,
        user: Option<&str>,
        network: Option<IpNet>,
    ) -> Result<ReaderPermit, Refusal> {
        let LimitOptions { readers_max, readers_per_user_max, readers_per_address_max, .. } = self.options;
        let mut readers = self.readers.lock();
        if readers.all >= readers_max {
            metrics::limit_reached(Limit::Readers);
            let detail = format!("this replica has {readers_max} readers: another replica may have room");
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
        Ok(ReaderPermit { limits: Arc::clone(self), user, network })
    }

    /// Counts a message of a reader: against the user, or else against the network if it is known.
    pub(crate) fn count_publish_by(
        &self,
        user: Option<&str>,
        network: Option<IpNet>,
        bytes: usize,
    ) -> Result<(), Refusal> {
        let publisher = match user {
            Some(user) => Some(Publisher::User(user.to_owned())),
            None => network.map(Publisher::Network),
        };
        publisher.map_or(Ok(()), |publisher| self.count_publish(&publisher, bytes))
    }

    /// Counts a read of a page of history, which costs Redis more than the request costs the client.
    pub(crate) fn count_page(&self, network: Option<IpNet>) -> Result<(), Refusal> {
        let Some(network) = network else { return Ok(()) };
        let rate = Rate::per_second(self.options.pages_per_address, self.options.page_burst_per_address);
        let mut pages = self.pages.lock();
        pages.take(&network, 1, rate, Instant::now()).map_err(|wait| {
            metrics::limit_reached(Limit::HistoryRate);
            let seconds = whole_seconds(wait);
            let detail = format!("one address may read {rate}; try again in {seconds} s");
            Refusal::too_many("too many pages of history", detail, seconds)
        })
    }

    /// Counts one publish.
    pub(crate) fn count_publish(&self, publisher: &Publisher, bytes: usize) -> Result<(), Refusal> {
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
        let mut publishes = self.publishes.lock();
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
}

/// Rounded up, so that a client that waits this long succeeds.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl Drop for ReaderPermit {
    fn drop(&mut self) {
        let mut readers = self.limits.readers.lock();
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

    fn status(admitted: Result<ReaderPermit, Refusal>) -> Option<u16> {
        admitted.err().map(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn a_permit_is_released_for_user_and_network() {
        let limits = limits();
        let (here, there) = (at("192.0.2.1"), at("192.0.2.2"));
        let mut permits = vec![];
        for (user, from) in [(Some("eve"), here), (Some("eve"), here), (None, here)] {
            permits.push(limits.admit(user, from).ok().unwrap());
        }
        assert_eq!(status(limits.admit(Some("eve"), there)), Some(429), "the user's");
        assert_eq!(status(limits.admit(Some("bob"), here)), Some(429), "the address'");
        permits.push(limits.admit(None, there).ok().unwrap());
        assert_eq!(status(limits.admit(None, at("192.0.2.3"))), Some(503), "the replica's");
        permits.clear();
        let readers = limits.readers.lock();
        assert_eq!((readers.all, readers.users.len(), readers.networks.len()), (0, 0, 0));
    }
}
