//! The ports of a process: the accept loop and its places, what peers take too slowly, and profiles.

pub(crate) mod port;
pub mod profiles;
pub(crate) mod serve;
