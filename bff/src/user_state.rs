//! What other programs keep for a user and publish to a user.

pub(crate) mod http;
pub(crate) mod values;
