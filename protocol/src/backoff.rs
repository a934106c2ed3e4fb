use crate::limits::{BACKOFF_BASE_MS, BACKOFF_CAP_MS};

/// Exponential back-off with full jitter: each wait is drawn evenly from zero to a ceiling that doubles up to a cap, so that
/// readers that lost their connections together do not reconnect together. (Marc Brooker, "Exponential Backoff And Jitter",
/// AWS Architecture Blog.)
#[derive(Clone, Debug)]
pub struct Backoff {
    base_ms: u64,
    cap_ms: u64,
    attempt: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(BACKOFF_BASE_MS, BACKOFF_CAP_MS)
    }
}

impl Backoff {
    /// Creates a back-off whose ceiling starts at `base_ms` and never exceeds `cap_ms`.
    #[must_use]
    pub fn new(base_ms: u64, cap_ms: u64) -> Self {
        Self { base_ms, cap_ms, attempt: 0 }
    }

    /// Returns the next wait in milliseconds; `random` is drawn evenly from 0 to 1.
    pub fn next_ms(&mut self, random: f64) -> u64 {
        let ceiling = self.base_ms.saturating_mul(1 << self.attempt.min(20)).min(self.cap_ms);
        self.attempt = self.attempt.saturating_add(1);
        // The ceiling is far below 2^52, so the product is exact enough.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let wait = (ceiling as f64 * random.clamp(0.0, 1.0)) as u64;
        wait
    }

    /// Resets the ceiling after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// Returns the number of waits since the last success.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_cap_and_resets() {
        let mut backoff = Backoff::new(500, 3_000);
        let waits: Vec<_> = (0..5).map(|_| backoff.next_ms(1.0)).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 3_000, 3_000]);
        backoff.reset();
        assert_eq!(backoff.next_ms(0.5), 250);
        for _ in 0..100 {
            backoff.next_ms(0.0);
        }
        assert_eq!(backoff.next_ms(2.0), 3_000);
    }
}
