use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// Clients whose use is remembered at most. Those who have rested are forgotten first.
const CLIENTS_MAX: usize = 100_000;
/// With so many clients at work, others are asked to wait this long.
const CROWDED_WAIT: Duration = Duration::from_secs(1);

/// So many a second in the long run, and so many in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl Rate {
    pub(super) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { per_second, burst }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} a second, {} in a row", self.per_second, self.burst)
    }
}

/// A bucket for each client that has taken something lately. A bucket is one moment: when it will be full
/// again if nothing more is taken. (The generic cell rate algorithm.)
#[derive(Debug)]
pub(super) struct Buckets<K> {
    full_at: HashMap<K, Instant>,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { full_at: HashMap::new() }
    }
}

impl<K: Clone + Hash + Eq> Buckets<K> {
    /// Takes so many for a client, or says how long to wait for them. More than a bucket holds are as many as it
    /// holds: what is large comes through when the bucket is full, and not never.
    pub(super) fn take(&mut self, client: &K, cost: u32, rate: Rate, now: Instant) -> Result<(), Duration> {
        let one = Duration::from_secs(1) / rate.per_second.get();
        let taken = one * cost.min(rate.burst.get());
        let full_at = self.full_at.get(client).copied().unwrap_or(now).max(now) + taken;
        let wait = (full_at - now).saturating_sub(one * rate.burst.get());
        if !wait.is_zero() {
            return Err(wait);
        }
        if self.full_at.len() >= CLIENTS_MAX && !self.full_at.contains_key(client) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= CLIENTS_MAX {
                return Err(CROWDED_WAIT);
            }
        }
        self.full_at.insert(client.clone(), full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate::new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn a_client_has_its_burst_and_then_so_many_a_second() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(buckets.take(&"eve", 1, rate(2, 3), now), Ok(()));
        }
        assert_eq!(buckets.take(&"eve", 1, rate(2, 3), now), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take(&"bob", 1, rate(2, 3), now), Ok(()), "each has its own");
        assert_eq!(buckets.take(&"eve", 1, rate(2, 3), at(400)), Err(Duration::from_millis(100)));
        assert_eq!(buckets.take(&"eve", 1, rate(2, 3), at(500)), Ok(()), "what was refused costs nothing");
        assert!(buckets.take(&"eve", 1, rate(2, 3), at(500)).is_err());
        for _ in 0..3 {
            assert_eq!(buckets.take(&"eve", 1, rate(2, 3), at(60_000)), Ok(()), "rest fills it, and no more");
        }
        assert!(buckets.take(&"eve", 1, rate(2, 3), at(60_000)).is_err());
    }

    #[test]
    fn what_costs_more_takes_more_and_what_costs_too_much_takes_all() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(buckets.take(&"eve", 3, rate(2, 4), now), Ok(()));
        assert_eq!(buckets.take(&"eve", 2, rate(2, 4), now), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take(&"eve", 1, rate(2, 4), now), Ok(()));
        assert_eq!(buckets.take(&"eve", 9, rate(2, 4), at(1_000)), Err(Duration::from_secs(1)));
        assert_eq!(buckets.take(&"eve", 9, rate(2, 4), at(2_000)), Ok(()));
    }

    #[test]
    fn those_who_have_rested_make_room() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        for client in 0..CLIENTS_MAX {
            buckets.take(&client, 1, rate(1, 1), now).unwrap();
        }
        assert_eq!(buckets.take(&CLIENTS_MAX, 1, rate(1, 1), now), Err(CROWDED_WAIT));
        let later = now + Duration::from_secs(1);
        assert_eq!(buckets.take(&CLIENTS_MAX, 1, rate(1, 1), later), Ok(()));
        assert_eq!(buckets.full_at.len(), 1);
    }
}
