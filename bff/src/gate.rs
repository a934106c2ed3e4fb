//! Who makes a request, and what they may do: callers, keys, signed requests and revocations. This room does not know
//! sockets, and only the route of sessions.

pub(crate) mod body;
pub(crate) mod caller;
pub(crate) mod cors;
pub mod demo;
pub(crate) mod keys;
pub(crate) mod local;
pub(crate) mod principal;
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
use session_key::SessionKey;
use signed::Signing;

use crate::clock::Clock;
use crate::limits::budget::Budget;
use crate::limits::clients::Limits;

/// Identifies who makes a request, and refuses requests without the right. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate(Arc<GateState>);

/// The state behind a [`Gate`].
pub(crate) struct GateState {
    pub(crate) broker: Broker,
    pub(crate) publishing: Publishing,
    pub(crate) limits: Arc<Limits>,
    pub(crate) identities: Identities,
    pub(crate) signing: Signing,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) session_key: Arc<SessionKey>,
    /// The budget of bytes of request bodies.
    pub(crate) bodies: Arc<Budget>,
    pub(crate) clock: Clock,
}

impl Gate {
    pub(crate) fn new(state: GateState) -> Self {
        Self(Arc::new(state))
    }
}

impl std::ops::Deref for Gate {
    type Target = GateState;

    fn deref(&self) -> &GateState {
        &self.0
    }
}
