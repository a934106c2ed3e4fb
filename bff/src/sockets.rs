//! The connections of readers: one visit, and its framing as WebSocket or as server-sent events. Knows no Redis.

pub(crate) mod readers;
pub(crate) mod sse;
pub(crate) mod visit;
pub(crate) mod ws;
