//! What an operator keeps in order in Redis: how much is kept, how full it is, the dead lists, and the key of sessions.

pub mod dead;
pub(crate) mod memory;
pub mod rotate;
pub(crate) mod storage;
