//! The keys that an identity provider publishes: fetched at the start, from time to time, and when a token names an unknown
//! key. While they cannot be fetched, the known keys stay valid for a day. A fetched set replaces the known keys, even if it
//! is empty.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_service::counts::release;
use carillon_service::outbound::{Outbound, address};
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use ipnet::IpNet;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::token::key::Key;

/// The interval of fetches.
pub const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// The shortest time between two fetches, whatever tokens request; also the interval while fetches fail.
pub const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The timeout of a fetch.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum bytes of a JWKS.
pub const JWKS_MAX_BYTES: usize = 256 * 1024;
/// Maximum keys of a JWKS; further ones are ignored.
pub const KEYS_MAX: usize = 64;
/// Maximum tokens that wait for a fetch at the same time; others get a temporary refusal.
pub const WAITING_MAX: usize = 1_024;
/// Maximum waiting tokens from one address; clients without a known address share half of all places.
pub const WAITING_PER_ADDRESS_MAX: usize = 64;
/// Maximum bytes of the name of a key that is fetched or remembered; a longer name is only found among the published keys.
const KEY_NAME_MAX_BYTES: usize = 128;
/// Maximum remembered names of unpublished keys, which are not fetched again within [`FETCH_INTERVAL_MIN`].
const MISSED_MAX: usize = 1_024;
/// Keys that could not be fetched again for this time are dropped.
pub const KEYS_KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest wait of a token: for a running fetch, the interval, and the next fetch.
pub const WAIT_MAX: Duration = Duration::from_secs(16);

/// The times of the loop, which are shorter in tests.
#[derive(Clone, Copy, Debug)]
struct Pace {
    every: Duration,
    interval_min: Duration,
    timeout: Duration,
    wait_max: Duration,
    waiting_max: usize,
    keep: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: REFRESH_EVERY,
            interval_min: FETCH_INTERVAL_MIN,
            timeout: FETCH_TIMEOUT,
            wait_max: WAIT_MAX,
            waiting_max: WAITING_MAX,
            keep: KEYS_KEEP,
        }
    }
}

/// The published keys, and the loop that fetches them.
#[derive(Debug)]
pub(crate) struct Jwks {
    url: Uri,
    client: Outbound,
    pace: Pace,
    state: watch::Sender<State>,
    wanted: Notify,
    waiting: Semaphore,
    /// The number of waiting tokens of each address.
    waiting_from: Mutex<HashMap<Option<IpNet>, usize>>,
    /// When the names of unpublished keys may be fetched again.
    missed: Mutex<HashMap<String, Instant>>,
}

/// The known keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The number of fetches that were started, and that ended.
    begun: u64,
    ended: u64,
    /// When the keys were fetched.
    fetched: Option<Instant>,
    /// Whether the last fetch failed.
    pub(crate) is_away: bool,
    pub(crate) keys: Arc<[Key]>,
}

impl Jwks {
    /// # Errors
    /// When the URL is invalid.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let url = address(url)?;
        let is_here = |host: &str| {
            let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
            host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
        };
        if url.scheme_str() == Some("http") && !url.host().is_some_and(is_here) {
            return Err("with http:// anyone on the network path could replace the keys: use https://, or a proxy on this machine at http://localhost".to_owned());
        }
        Ok(Self::paced(url, Pace::default()))
    }

    fn paced(url: Uri, pace: Pace) -> Self {
        Self {
            url,
            client: Outbound::with_default_roots(),
            pace,
            state: watch::Sender::default(),
            wanted: Notify::new(),
            waiting: Semaphore::new(pace.waiting_max),
            waiting_from: Mutex::default(),
            missed: Mutex::default(),
        }
    }

    /// Returns the keys of the last successful fetch.
    pub(crate) fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.state.borrow().keys)
    }

    /// Returns the keys once one of this name is known, or else after a fetch that started after this call; the known keys
    /// at once for a name that is too long or was missing just before. `None` when too many tokens wait, in all or from this
    /// address, or it takes too long.
    pub(crate) async fn fetched_after_now(&self, id: Option<&str>, from: Option<IpNet>) -> Option<State> {
        if id.is_some_and(|id| id.len() > KEY_NAME_MAX_BYTES || self.was_missed(id)) {
            return Some(self.state.borrow().clone());
        }
        let _place = self.waiting.try_acquire().ok()?;
        let _share = Share::take(self, from)?;
        let mut changes = self.state.subscribe();
        // A running fetch may have been answered before the key was published.
        let next = changes.borrow().begun + 1;
        self.wanted.notify_one();
        let has_come = |state: &State| {
            state.ended >= next || id.is_some() && state.keys.iter().any(|key| key.id() == id)
        };
        let waiting = changes.wait_for(has_come);
        let state = timeout(self.pace.wait_max, waiting).await.ok()?.ok()?.clone();
        if let Some(id) =
            id.filter(|id| !state.is_away && !state.keys.iter().any(|key| key.id() == Some(*id)))
        {
            self.miss(id);
        }
        Some(state)
    }

    fn was_missed(&self, id: &str) -> bool {
        self.missed.lock().get(id).is_some_and(|until| Instant::now() < *until)
    }

    /// Remembers that no key of this name was published, so that invented names cost one fetch and no second place.
    fn miss(&self, id: &str) {
        let (mut missed, now) = (self.missed.lock(), Instant::now());
        if missed.len() >= MISSED_MAX {
            missed.retain(|_, until| now < *until);
        }
        if missed.len() < MISSED_MAX {
            missed.insert(id.to_owned(), now + self.pace.interval_min);
        }
    }

    /// Fetches until `stop`, and reports each failed fetch.
    pub(crate) async fn run(&self, stop: CancellationToken, failed: &impl Fn()) {
        let fetch = || async { self.fetch().await.inspect_err(|_| failed()) };
        self.run_with(stop, fetch).await;
    }

    async fn run_with<F>(&self, stop: CancellationToken, fetch: impl Fn() -> F)
    where
        F: Future<Output = Result<Vec<Key>, String>>,
    {
        let fetching = async {
            loop {
                let began = Instant::now();
                self.state.send_modify(|state| state.begun += 1);
                let is_away = self.take(fetch().await);
                // A token that arrived in the meantime has requested a fetch, so this wait may be short.
                sleep_until(began + self.pace.interval_min).await;
                if !is_away {
                    tokio::select! {
                        () = self.wanted.notified() => {}
                        () = sleep_until(began + self.pace.every) => {}
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = fetching => {}
        }
    }

    /// Applies the result of a fetch, and returns whether it failed.
    fn take(&self, fetched: Result<Vec<Key>, String>) -> bool {
        let was_away = self.state.borrow().is_away;
        let is_away = fetched.is_err();
        match &fetched {
            Ok(keys) if was_away => {
                tracing::info!(keys = keys.len(), "the keys of JWKS_URL can be fetched again")
            }
            Ok(_) => {}
            Err(error) => {
                if !was_away {
                    tracing::warn!(
                        error,
                        host = self.url.host(),
                        "cannot fetch the keys of JWKS_URL; the known keys stay valid"
                    );
                }
            }
        }
        let now = Instant::now();
        self.state.send_modify(|state| {
            state.ended = state.begun;
            state.is_away = is_away;
            if let Ok(keys) = fetched {
                (state.keys, state.fetched) = (keys.into(), Some(now));
            } else if state.fetched.is_some_and(|fetched| now >= fetched + self.pace.keep) {
                tracing::error!("the keys of JWKS_URL could not be fetched for too long, and were dropped");
                (state.keys, state.fetched) = (Arc::default(), None);
            }
        });
        is_away
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let mut request = Request::new(Full::<Bytes>::default());
        *request.uri_mut() = self.url.clone();
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static("application/json, application/jwk-set+json"));
        let answer = self.client.fetch(request, self.pace.timeout, JWKS_MAX_BYTES).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("it answered {}", answer.status));
        }
        keys_of(&answer.body)
    }
}

/// A place of one address, or of all clients without a known address.
struct Share<'a> {
    jwks: &'a Jwks,
    from: Option<IpNet>,
}

impl<'a> Share<'a> {
    fn take(jwks: &'a Jwks, from: Option<IpNet>) -> Option<Self> {
        let max =
            if is_one_client(from) { WAITING_PER_ADDRESS_MAX } else { jwks.pace.waiting_max.div_ceil(2) };
        let mut all = jwks.waiting_from.lock();
        let waiting = all.entry(from).or_default();
        if *waiting >= max {
            return None;
        }
        *waiting += 1;
        Some(Self { jwks, from })
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        release(&mut self.jwks.waiting_from.lock(), self.from, 1);
    }
}

/// Whether the network that a token's sender counts against is of one client, and not of all unknown ones.
fn is_one_client(from: Option<IpNet>) -> bool {
    from.is_some_and(|network| network.prefix_len() > 0)
}

/// Parses the keys of a JWKS. Unusable keys are left out, since other keys of the set may still be valid.
///
/// # Errors
/// When it is not a JWKS, or none of its keys is usable. An empty set withdraws all keys.
pub fn keys_of(json: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(json).map_err(|error| format!("it is not a JWKS: {error}"))?;
    let keys: Vec<_> = set.keys.iter().filter_map(Key::jwk).take(KEYS_MAX).collect();
    if keys.is_empty() && !set.keys.is_empty() {
        return Err(format!("none of its {} keys is usable", set.keys.len()));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
