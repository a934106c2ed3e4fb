use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

/// Wrong keys of one address in a row; from then on one in [`GUESS_EVERY`].
const GUESSES_IN_A_ROW: u32 = 30;
const GUESS_EVERY: Duration = Duration::from_secs(60);
/// Addresses whose guesses are remembered. Those who have rested are forgotten first, and then all.
const ADDRESSES_MAX: usize = 100_000;

/// Wrong keys, by the address that they came from. Clients whose address is not known are counted as one. (The same
/// algorithm as that of [`crate::limits`], for less than one a second.)
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    /// When each has its whole allowance again.
    rested_at: Mutex<HashMap<Option<IpNet>, Instant>>,
}

impl Guesses {
    /// How long this address has to wait before it may be wrong again.
    pub(crate) fn wait(&self, address: Option<IpNet>, now: Instant) -> Option<Duration> {
        let rested_at = *self.lock().get(&address)?;
        let wait = (rested_at + GUESS_EVERY).checked_duration_since(now)?;
        wait.checked_sub(GUESS_EVERY * GUESSES_IN_A_ROW).filter(|wait| !wait.is_zero())
    }

    /// Counts a wrong key.
    pub(crate) fn count(&self, address: Option<IpNet>, now: Instant) {
        let mut all = self.lock();
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&address) {
            all.retain(|_, rested_at| *rested_at > now);
            if all.len() >= ADDRESSES_MAX {
                all.clear();
            }
        }
        let rested_at = all.entry(address).or_insert(now);
        *rested_at = (*rested_at).max(now) + GUESS_EVERY;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<IpNet>, Instant>> {
        self.rested_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_wrong_thirty_times_and_then_once_a_minute() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let (here, there) = (Some("192.0.2.1/32".parse().unwrap()), None);
        for _ in 0..GUESSES_IN_A_ROW {
            assert_eq!(guesses.wait(here, now), None);
            guesses.count(here, now);
        }
        assert_eq!(guesses.wait(here, now), Some(GUESS_EVERY));
        assert_eq!(guesses.wait(there, now), None, "each has its own");
        let later = now + GUESS_EVERY;
        assert_eq!(guesses.wait(here, now + GUESS_EVERY / 2), Some(GUESS_EVERY / 2));
        assert_eq!(guesses.wait(here, later), None);
        guesses.count(here, later);
        assert_eq!(guesses.wait(here, later), Some(GUESS_EVERY));
        assert_eq!(guesses.wait(here, later + GUESS_EVERY * GUESSES_IN_A_ROW), None);
    }
}
