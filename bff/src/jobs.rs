//! Work in the background: who starts it and reads it, and the worker that does the demo's.

pub(crate) mod http;
pub(crate) mod worker;
