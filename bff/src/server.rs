//! The ports of a process: the accept loop and its places, what peers take too slowly, profiles, and requests to others.

pub(crate) mod outbound;
pub(crate) mod port;
pub mod profiles;
pub(crate) mod serve;
