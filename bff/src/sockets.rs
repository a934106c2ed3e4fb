//! The connections of readers: one visit, framed as WebSocket or as server-sent events. This room does not know Redis.

pub(crate) mod readers;
pub(crate) mod sse;
pub(crate) mod visit;
pub(crate) mod ws;
