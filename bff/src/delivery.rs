//! From the list to each reader: claim, hub, rings, feeds and pages of history. This room knows a reader by its id and its
//! audiences. It does not know tokens, sockets or HTTP.

pub(crate) mod dispatch;
pub mod feed;
pub(crate) mod frame;
pub mod hub;
pub(crate) mod pages;
pub(crate) mod reads;
pub mod refill;
pub(crate) mod topics;
