//! Bounds for one client and for all together: readers, requests, rates, topics and bytes. This room does not know users,
//! the hub or routes: callers pass it what to count by.

pub(crate) mod budget;
pub(crate) mod clients;
pub(crate) mod rate;
pub(crate) mod request_time;
