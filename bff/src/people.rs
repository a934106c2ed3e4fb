//! Messages between users, how far they have come, and who is online.

pub(crate) mod messages;
pub(crate) mod presence;
pub(crate) mod trace;
