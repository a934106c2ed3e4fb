//! The keys that an identity provider publishes: fetched at the start, now and then, and when a token
//! names one that is not known. While they cannot be fetched, those that are here stay for a day. What is published counts,
//! also where it is nothing any more.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use carillon_service::counts::release;
use carillon_service::outbound::{Outbound, address};
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::token::key::Key;

/// The keys are fetched this often.
pub const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// And never more often than this, whatever tokens ask for; so often too while they cannot be fetched.
pub const FETCH_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// A fetch that has not ended by then has failed.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest JWKS, in bytes.
pub const JWKS_MAX_BYTES: usize = 256 * 1024;
/// Most keys that are taken from a JWKS; those after them are left out.
pub const KEYS_MAX: usize = 64;
/// Tokens that may wait for a fetch at the same time; the others are told to come again.
pub const WAITING_MAX: usize = 1_024;
/// Of them from one address; those whose address is not known have half of all places.
pub const WAITING_PER_ADDRESS_MAX: usize = 64;
/// Longest name of a key that is fetched or remembered, in bytes; a longer one is found where it was published already.
const KEY_NAME_MAX_BYTES: usize = 128;
/// Names of keys that were not published, which are not asked for again within [`FETCH_INTERVAL_MIN`].
const MISSED_MAX: usize = 1_024;
/// Keys that could not be fetched anew for so long are used no more.
pub const KEYS_KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest that a token waits: for a fetch that runs, the interval, and the next fetch.
pub const WAIT_MAX: Duration = Duration::from_secs(16);

/// How fast things go; shorter in tests.
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
    /// How many of each address wait.
    waiting_from: Mutex<HashMap<Option<IpNet>, usize>>,
    /// Until when names of keys that were not published are not asked for.
    missed: Mutex<HashMap<String, Instant>>,
}

/// What is known of the keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Fetches that were begun, and that ended.
    begun: u64,
    ended: u64,
    /// When the keys were fetched.
    fetched: Option<Instant>,
    /// Whether the last one failed.
    pub(crate) is_away: bool,
    pub(crate) keys: Arc<[Key]>,
}

impl Jwks {
    /// # Errors
    /// When the address is none that can be asked.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let url = address(url)?;
        let is_here = |host: &str| {
            let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
            host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
        };
        if url.scheme_str() == Some("http") && !url.host().is_some_and(is_here) {
            return Err("by http:// whoever is on the way could put keys there: use https://, or a proxy on this machine at http://localhost".to_owned());
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

    /// The keys of the last fetch that succeeded.
    pub(crate) fn keys(&self) -> Arc<[Key]> {
        Arc::clone(&self.state.borrow().keys)
    }

    /// The keys as they are when one of this name has come, or else after a fetch that began after this
    /// call; those that are here, for a name that is too long or was asked for just before. None when too many wait, in all or from
    /// this address, or it takes too long.
    pub(crate) async fn fetched_after_now(&self, id: Option<&str>, from: Option<IpNet>) -> Option<State> {
        if id.is_some_and(|id| id.len() > KEY_NAME_MAX_BYTES || self.was_missed(id)) {
            return Some(self.state.borrow().clone());
        }
        let _place = self.waiting.try_acquire().ok()?;
        let _share = Share::take(self, from)?;
        let mut changes = self.state.subscribe();
        // A fetch that runs may have been answered before the key was published.
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
        lock(&self.missed).get(id).is_some_and(|until| Instant::now() < *until)
    }

    /// Remembers that no key of this name was published: names that are made up cost one fetch, and no place twice.
    fn miss(&self, id: &str) {
        let (mut missed, now) = (lock(&self.missed), Instant::now());
        if missed.len() >= MISSED_MAX {
            missed.retain(|_, until| now < *until);
        }
        if missed.len() < MISSED_MAX {
            missed.insert(id.to_owned(), now + self.pace.interval_min);
        }
    }

    /// Fetches until `stop`, and reports each fetch that fails.
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
                // A token that came meanwhile has left its wish, so this wait may be short.
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

    /// Takes what came of a fetch, and says whether it failed.
    fn take(&self, fetched: Result<Vec<Key>, String>) -> bool {
        let was_away = self.state.borrow().is_away;
        let is_away = fetched.is_err();
        match &fetched {
            Ok(keys) if was_away => tracing::info!(keys = keys.len(), "the keys of JWKS_URL are back"),
            Ok(_) => {}
            Err(error) => {
                if !was_away {
                    tracing::warn!(
                        error,
                        host = self.url.host(),
                        "the keys of JWKS_URL cannot be fetched; those that are here stay"
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
                tracing::error!(
                    "the keys of JWKS_URL could not be fetched for too long, and are used no more"
                );
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

/// A place of those of one address, or of all whose address is not known.
struct Share<'a> {
    jwks: &'a Jwks,
    from: Option<IpNet>,
}

impl<'a> Share<'a> {
    fn take(jwks: &'a Jwks, from: Option<IpNet>) -> Option<Self> {
        let max =
            if is_one_client(from) { WAITING_PER_ADDRESS_MAX } else { jwks.pace.waiting_max.div_ceil(2) };
        let mut all = lock(&jwks.waiting_from);
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
        release(&mut lock(&self.jwks.waiting_from), self.from, 1);
    }
}

/// Whether what a token's sender is counted by is one client, and not many that are not told apart.
fn is_one_client(from: Option<IpNet>) -> bool {
    from.is_some_and(|network| network.prefix_len() > 0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keys of a JWKS. One that cannot be used is left out: others of the same set may still be good.
///
/// # Errors
/// When it is none, or has keys of which none can be used. One without any takes all back.
pub fn keys_of(json: &[u8]) -> Result<Vec<Key>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(json).map_err(|error| format!("it is no JWKS: {error}"))?;
    let keys: Vec<_> = set.keys.iter().filter_map(Key::jwk).take(KEYS_MAX).collect();
    if keys.is_empty() && !set.keys.is_empty() {
        return Err(format!("none of its {} keys can be used", set.keys.len()));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
