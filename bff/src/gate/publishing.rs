//! Who may publish over HTTP, with a key and without one.

use crate::gate::keys::ApiKeys;

/// The settings of publishing over HTTP.
#[derive(Clone, Debug, Default)]
pub struct Publishing {
    /// The keys of applications.
    pub keys: ApiKeys,
    /// Who may publish without a key.
    pub open: Open,
}

/// Who may publish without a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Open {
    /// No client.
    #[default]
    Nobody,
    /// Clients on this machine, without a proxy. Where users cannot sign in, they have all other rights too.
    ThisMachine,
    /// Any client, which has no other right.
    Anybody,
}

impl Publishing {
    /// Logs who may publish without a key.
    pub fn warn(&self) {
        match self.open {
            Open::Nobody => {}
            Open::ThisMachine => tracing::warn!(
                "no API_KEY, secrets to sign with or keys of tokens are set: every program on this machine may publish, set and read states, and revoke. Requests through a proxy and for other hosts than localhost may not"
            ),
            Open::Anybody => {
                tracing::warn!("ALLOW_PUBLISH is set: any client that reaches this replica may publish")
            }
        }
    }
}
