//! Who may publish over HTTP, with a key and without one.

use crate::gate::keys::ApiKeys;

/// Who may publish over HTTP, and what goes with it.
#[derive(Clone, Debug, Default)]
pub struct Publishing {
    /// The keys of applications.
    pub keys: ApiKeys,
    /// Who needs none.
    pub open: Open,
}

/// Who may publish without a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Open {
    /// Nobody.
    #[default]
    Nobody,
    /// Whoever asks on this machine, and not through a proxy; where nobody can sign in, all else is open to them too.
    ThisMachine,
    /// Anybody; and nothing else is open.
    Anybody,
}

impl Publishing {
    /// Says in the log to whom publishing is open.
    pub fn warn(&self) {
        match self.open {
            Open::Nobody => {}
            Open::ThisMachine => tracing::warn!(
                "no API_KEY, secrets to sign with or keys of tokens are set: every program on this machine may publish, set and read states, and revoke. Requests through a proxy and for other hosts than localhost may not"
            ),
            Open::Anybody => {
                tracing::warn!("ALLOW_PUBLISH is set: anybody who reaches this replica may publish")
            }
        }
    }
}
