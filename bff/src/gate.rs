//! Who makes a request, and what they may do: callers, keys, signed requests and revocations. Knows no socket and no route but
//! that of sessions.

pub(crate) mod asker;
pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod cors;
pub mod demo;
pub(crate) mod keys;
pub(crate) mod local;
pub(crate) mod publishing;
pub(crate) mod revocations;
pub(crate) mod session_key;
pub(crate) mod sessions;
pub mod signed;

use std::sync::Arc;

use carillon_auth::identity::Identities;
use carillon_broker::Broker;

use publishing::Publishing;
use revocations::Revocations;
use session_key::Sealing;
use signed::Signing;

use crate::clock::Clock;
use crate::limits::budget::Budget;
use crate::limits::clients::Limits;

/// Finds out who makes a request, and refuses those who may not. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Doors>);

/// What a [`Gate`] is made of.
pub(crate) struct Doors {
    pub(crate) broker: Broker,
    pub(crate) publishing: Publishing,
    pub(crate) limits: Arc<Limits>,
    pub(crate) identities: Identities,
    pub(crate) signing: Signing,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) sealing: Arc<Sealing>,
    /// What bodies of requests are taken from.
    pub(crate) bodies: Arc<Budget>,
    pub(crate) clock: Clock,
}

impl Gate {
    pub(crate) fn new(doors: Doors) -> Self {
        Self(Arc::new(doors))
    }
}

impl std::ops::Deref for Gate {
    type Target = Doors;

    fn deref(&self) -> &Doors {
        &self.0
    }
}
