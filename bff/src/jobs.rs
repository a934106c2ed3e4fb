//! Background jobs: the API to start and read them, and the worker of the demo's jobs.

pub(crate) mod http;
pub(crate) mod worker;
