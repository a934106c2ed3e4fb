//! The tools of all tests: a real Redis server, a network that can be broken on purpose, built programs as child processes,
//! and readers that record everything they receive. Only for tests; it knows the wire ([`carillon_protocol`]) and not the
//! servers behind it.
//!
//! All functions panic with one clear line when they cannot do their work: a test that cannot run has failed.

mod caddy;
mod certificates;
mod dns;
mod driver;
mod eventually;
mod hostile;
mod leash;
mod link;
mod need;
mod port;
mod process;
mod proxy;
mod reader;
mod record;
mod redis_server;
mod signer;
mod socket;

pub use caddy::Caddy;
pub use certificates::certificates;
pub use dns::Dns;
pub use eventually::eventually;
pub use hostile::{Hostile, hostile};
pub use need::need;
pub use port::free_port;
pub use process::Process;
pub use proxy::Proxy;
pub use reader::{Reader, ReaderOptions};
pub use record::{Received, Record};
pub use redis_server::RedisServer;
pub use signer::Signer;
pub use socket::{DialOptions, Frame, Refused, Socket};
