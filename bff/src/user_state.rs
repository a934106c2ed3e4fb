//! The state that other programs keep for a user, and the payloads that they publish to a user.

pub(crate) mod http;
pub(crate) mod values;
