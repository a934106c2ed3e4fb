#![allow(clippy::unwrap_used, reason = "a test")]

mod process;
mod proxy;
mod reader;
mod redis_server;
