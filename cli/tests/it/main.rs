#![allow(clippy::unwrap_used, reason = "a test")]

mod demo;
mod door;
mod running;
mod send;
mod server;
mod tail;
mod tls;
