//! What an operator maintains in Redis: retention, memory, the dead lists, and the key of sessions.

pub mod dead;
pub(crate) mod memory;
pub mod rotate;
pub(crate) mod storage;
