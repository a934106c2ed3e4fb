//! What the tests of every crate stand on: a real Redis server, a network that can be broken on
//! purpose, built programs as child processes, and readers that write down all they hear. Only for
//! tests; it knows the wire ([`carillon_protocol`]) and nothing of the servers behind it.
//!
//! Everything here panics with one clear line when it cannot do its work: a test that cannot run has
//! failed.

mod caddy;
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
