use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// Maximum clients with a bucket. Full buckets are removed first.
const CLIENTS_MAX: usize = 100_000;
/// The wait for other clients when no bucket is free.
const CROWDED_WAIT: Duration = Duration::from_secs(1);

/// One per interval in the long run, and a burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    every: Duration,
    burst: u32,
}

impl Rate {
    pub(crate) const fn every(every: Duration, burst: u32) -> Self {
        Self { every, burst }
    }

    pub(super) fn per_second(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self::every(Duration::from_secs(1) / per_second.get(), burst.get())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.every > Duration::from_secs(1) {
            write!(f, "one in {} s, {} in a row", self.every.as_secs(), self.burst)
        } else {
            write!(f, "{:.0} a second, {} in a row", 1.0 / self.every.as_secs_f64(), self.burst)
        }
    }
}

/// The bucket of one client, stored as the time when it will be full again (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    full_at: Instant,
}

impl Bucket {
    pub(crate) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes `cost` tokens, or returns the time to wait. A cost above the burst is capped at the burst, so that a large
    /// request can succeed too.
    pub(crate) fn take(&mut self, cost: u32, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + rate.every * cost.min(rate.burst);
        let wait = (full_at - now).saturating_sub(rate.every * rate.burst);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full_at = full_at;
        Ok(())
    }
}

/// A bucket for each client that has taken something lately.
#[derive(Debug)]
pub(super) struct Buckets<K>(HashMap<K, Bucket>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Hash + Eq> Buckets<K> {
    /// Takes `cost` tokens for a client, or returns the time to wait.
    pub(super) fn take(&mut self, client: &K, cost: u32, rate: Rate, now: Instant) -> Result<(), Duration> {
        let mut bucket = self.of(client, now);
        bucket.take(cost, rate, now)?;
        if self.0.len() >= CLIENTS_MAX && !self.0.contains_key(client) {
            self.0.retain(|_, bucket| bucket.full_at > now);
            if self.0.len() >= CLIENTS_MAX {
                return Err(CROWDED_WAIT);
            }
        }
        self.0.insert(client.clone(), bucket);
        Ok(())
    }

    /// Checks whether a client may take one token, without taking it, or returns the time to wait.
    pub(super) fn has_one(&self, client: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.of(client, now).take(1, rate, now)
    }

    fn of(&self, client: &K, now: Instant) -> Bucket {
        self.0.get(client).copied().unwrap_or_else(|| Bucket::full(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate::per_second(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap())
    }

    #[test]
    fn a_client_has_a_burst_and_then_a_rate() {
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
    fn a_rate_may_be_below_one_a_second_and_a_check_takes_no_token() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let (minute, slow) = (Duration::from_secs(60), Rate::every(Duration::from_secs(60), 30));
        for _ in 0..30 {
            assert_eq!(buckets.has_one(&"eve", slow, now), Ok(()));
            assert_eq!(buckets.take(&"eve", 1, slow, now), Ok(()));
        }
        assert_eq!(buckets.has_one(&"eve", slow, now), Err(minute));
        assert_eq!(buckets.has_one(&"bob", slow, now), Ok(()));
        assert_eq!(buckets.has_one(&"eve", slow, now + minute / 2), Err(minute / 2));
        assert_eq!(buckets.take(&"eve", 1, slow, now + minute), Ok(()));
        assert_eq!(buckets.take(&"eve", 1, slow, now + minute), Err(minute));
        assert_eq!(buckets.take(&"eve", 30, slow, now + minute * 31), Ok(()));
        let words = [slow, rate(1, 2), rate(3, 9), rate(1_000, 5)].map(|rate| rate.to_string());
        let said = ["one in 60 s, 30 in a row", "1 a second, 2 in a row", "3 a second, 9 in a row"];
        assert_eq!(
            (&words[..3], words[3].as_str()),
            (&said.map(str::to_owned)[..], "1000 a second, 5 in a row")
        );
    }

    #[test]
    fn a_cost_takes_tokens_up_to_the_burst() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let at = |ms| now + Duration::from_millis(ms);
        assert_eq!(buckets.take(&"eve", 3, rate(2, 4), now), Ok(()));
        assert_eq!(buckets.take(&"eve", 2, rate(2, 4), now), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take(&"eve", 1, rate(2, 4), now), Ok(()));
        assert_eq!(buckets.take(&"eve", 9, rate(2, 4), at(1_000)), Err(Duration::from_secs(1)));
        assert_eq!(buckets.take(&"eve", 9, rate(2, 4), at(2_000)), Ok(()));
    }

    #[test]
    fn full_buckets_make_room() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        for client in 0..CLIENTS_MAX {
            buckets.take(&client, 1, rate(1, 1), now).unwrap();
        }
        assert_eq!(buckets.take(&CLIENTS_MAX, 1, rate(1, 1), now), Err(CROWDED_WAIT));
        let later = now + Duration::from_secs(1);
        assert_eq!(buckets.take(&CLIENTS_MAX, 1, rate(1, 1), later), Ok(()));
        assert_eq!(buckets.0.len(), 1);
    }
}
