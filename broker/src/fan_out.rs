//! What replicas publish to each other: the subscriptions of one, what it receives, and the signs of life by which it
//! notices that it receives nothing.

mod codec;
pub(crate) mod event;
mod listen;
