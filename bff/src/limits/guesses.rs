//! Wrong keys, by the address that they came from. Clients whose address is not known are counted as one, and so are the
//! programs of this machine.

use std::sync::PoisonError;
use std::time::Duration;

use axum::http::request::Parts;
use tokio::time::Instant;

use super::rate::Rate;
use super::{Limits, whole_seconds};
use crate::metrics::{self, Limit};
use crate::reply::Refusal;

/// One a minute, and 30 in a row.
const GUESSES: Rate = Rate::every(Duration::from_secs(60), 30);

impl Limits {
    /// Refuses a request of an address that has sent too many wrong keys.
    pub(crate) fn may_guess(&self, parts: &Parts) -> Result<(), Refusal> {
        let guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        guesses.has_one(&self.network(parts), GUESSES, Instant::now()).map_err(refused)
    }

    /// Counts a wrong key.
    pub(crate) fn guess(&self, parts: &Parts) -> Result<(), Refusal> {
        let (address, now) = (self.network(parts), Instant::now());
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        guesses.take(&address, 1, GUESSES, now).map_err(refused)?;
        if guesses.has_one(&address, GUESSES, now).is_err() {
            let address = address.map(tracing::field::display);
            tracing::warn!(address, "too many wrong keys: refused until they become fewer");
        }
        Ok(())
    }
}

fn refused(wait: Duration) -> Refusal {
    metrics::limit_reached(Limit::KeyGuesses);
    let seconds = whole_seconds(wait);
    let detail = format!("from one address {GUESSES}; try again in {seconds} s");
    Refusal::too_many("too many wrong keys", detail, seconds)
}
