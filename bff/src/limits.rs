//! How much one client and all of them may have: readers, requests, rates, topics and bytes. Knows no user, no hub and no
//! route: others pass it what to count by.

pub(crate) mod budget;
pub(crate) mod clients;
pub(crate) mod request_time;
