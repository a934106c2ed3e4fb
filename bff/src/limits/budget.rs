//! Budgets for the bytes that clients make a replica hold. Code takes bytes from a budget before it holds them, and each
//! address may have an eighth of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_service::counts::release;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// One address may have this fraction of a budget.
const SHARES: usize = 8;

/// A number of bytes that clients share.
#[derive(Debug)]
pub(crate) struct Budget {
    max_bytes: usize,
    used: Mutex<Used>,
    /// Notified when bytes are released.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Used {
    bytes: usize,
    networks: HashMap<IpNet, usize>,
}

/// Bytes taken from a budget. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
    network: Option<IpNet>,
}

impl Budget {
    /// Creates a budget.
    pub(crate) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes, used: Mutex::default(), freed: Notify::new() })
    }

    /// Takes bytes for a client of a network, if that is known. Returns `None` when the budget is used up, or the network
    /// has its share. More than a share is reduced to a share, so that a large request can succeed too.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize, network: Option<IpNet>) -> Option<Permit> {
        let share = self.max_bytes / SHARES;
        let bytes = bytes.min(share);
        let mut used = self.used.lock();
        if used.bytes + bytes > self.max_bytes {
            return None;
        }
        if let Some(network) = network {
            let of_network = used.networks.entry(network).or_default();
            if *of_network + bytes > share {
                return None;
            }
            *of_network += bytes;
        }
        used.bytes += bytes;
        Some(Permit { budget: Arc::clone(self), bytes, network })
    }

    /// Takes or grows a permit to `bytes`; `false` when the budget lacks them.
    pub(crate) fn try_hold(
        self: &Arc<Self>,
        permit: &mut Option<Permit>,
        bytes: usize,
        network: Option<IpNet>,
    ) -> bool {
        match permit {
            Some(permit) => permit.grow_to(bytes),
            None => {
                *permit = self.try_take(bytes, network);
                permit.is_some()
            }
        }
    }

    /// Like [`Budget::try_take`], but waits at most `max_wait`. This is cancel-safe.
    pub(crate) async fn take(
        self: &Arc<Self>,
        bytes: usize,
        network: Option<IpNet>,
        max_wait: Duration,
    ) -> Option<Permit> {
        let until = Instant::now() + max_wait;
        loop {
            let freed = self.freed.notified();
            if let Some(permit) = self.try_take(bytes, network) {
                return Some(permit);
            }
            timeout_at(until, freed).await.ok()?;
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.used.lock().bytes
    }
}

impl Permit {
    /// Grows the permit to `bytes`; `false` when the budget lacks them.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let Some(mut taken) = self.budget.try_take(more, self.network) else { return false };
        self.bytes += std::mem::take(&mut taken.bytes);
        true
    }

    /// Releases all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let back = self.bytes.saturating_sub(bytes);
        self.bytes -= back;
        self.release(back);
    }

    fn release(&self, bytes: usize) {
        let mut used = self.budget.used.lock();
        used.bytes -= bytes;
        if let Some(network) = self.network {
            release(&mut used.networks, network, bytes);
        }
        drop(used);
        self.budget.freed.notify_waiters();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release(self.bytes);
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<IpNet> {
        Some(address.parse::<std::net::IpAddr>().unwrap().into())
    }

    #[test]
    fn an_address_has_a_share_and_all_addresses_have_the_budget() {
        let budget = Budget::new(80);
        let (one, two) = (at("192.0.2.1"), at("192.0.2.2"));
        let mut first = budget.try_take(7, one).unwrap();
        assert!(budget.try_take(4, one).is_none(), "its share is 10");
        assert!(budget.try_take(10, two).is_some());
        assert!(!first.grow_to(11) && first.grow_to(8));
        first.shrink(6);
        let second = budget.try_take(4, one).unwrap();
        let unknown: Vec<_> = (0..7).map(|_| budget.try_take(1_000, None).unwrap()).collect();
        assert!(budget.try_take(1, two).is_none(), "all are taken");
        drop((first, second, unknown));
        assert_eq!((budget.bytes(), budget.used.lock().networks.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_client_is_served_when_bytes_are_released_or_times_out() {
        let budget = Budget::new(80);
        let all: Vec<_> = (0..8).map(|_| budget.try_take(10, None).unwrap()).collect();
        assert!(budget.take(5, None, Duration::from_secs(1)).await.is_none());
        let waiting = budget.take(5, None, Duration::from_secs(60));
        let giving = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(all);
        };
        let (permit, ()) = tokio::join!(waiting, giving);
        assert!(permit.is_some());
    }
}
