//! The dialects of the system notify, which this service replaces: its socket and its Twirp service.

pub(crate) mod notify;
pub mod twirp;
