//! From the list to each reader: claim, hub, rings, feeds and pages of history. Knows readers by a number and the audiences
//! that they read, and neither tokens, nor sockets, nor HTTP.

pub(crate) mod dispatch;
pub mod feed;
pub(crate) mod frame;
pub mod hub;
pub(crate) mod pages;
pub(crate) mod reads;
pub mod refill;
pub(crate) mod topics;
