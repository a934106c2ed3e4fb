#![allow(clippy::unwrap_used, reason = "a test")]

mod port;
mod signals;
