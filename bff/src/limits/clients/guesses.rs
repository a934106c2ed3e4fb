//! Limits wrong keys by the address that they came from. Clients without a known address count as one, and so do the
//! programs on this machine.

use std::time::Duration;

use axum::http::request::Parts;
use tokio::time::Instant;

use super::{Limits, whole_seconds};
use crate::limits::rate::Rate;
use crate::metrics::{self, Limit};
use crate::refusal::Refusal;

/// One wrong key a minute, and 30 in a row.
const GUESSES: Rate = Rate::every(Duration::from_secs(60), 30);

impl Limits {
    /// Refuses a request of an address with too many wrong keys.
    pub(crate) fn check_guesses(&self, parts: &Parts) -> Result<(), Refusal> {
        let guesses = self.guesses.lock();
        guesses.has_one(&self.network(parts), GUESSES, Instant::now()).map_err(refused)
    }

    /// Counts a wrong key.
    pub(crate) fn count_guess(&self, parts: &Parts) -> Result<(), Refusal> {
        let (address, now) = (self.network(parts), Instant::now());
        let mut guesses = self.guesses.lock();
        guesses.take(&address, 1, GUESSES, now).map_err(refused)?;
        if guesses.has_one(&address, GUESSES, now).is_err() {
            let address = address.map(tracing::field::display);
            tracing::warn!(address, "too many wrong keys: requests with a key are refused for a while");
        }
        Ok(())
    }
}

fn refused(wait: Duration) -> Refusal {
    metrics::limit_reached(Limit::KeyGuesses);
    let seconds = whole_seconds(wait);
    let detail = format!("one address may send {GUESSES}; try again in {seconds} s");
    Refusal::too_many("too many wrong keys", detail, seconds)
}
