//! The dialects of the systems that this one takes the place of: notify's socket and its Twirp service.

pub(crate) mod notify;
pub mod twirp;
