//! The native driver of the client core ([`carillon_protocol::Client`]): it connects, resumes from the last
//! cursor, waits between attempts, notices a silent server and sends acknowledgements in batches. The
//! command line and the test readers use it, and so may any program in Rust.
//!
//! A [`Dial`] opens sockets and a [`Socket`] carries text frames. The application implements both, so that it
//! chooses TLS, headers and the address of each attempt. The driver knows neither Redis nor any server.
//!
//! Bounds are those of [`carillon_protocol::limits`]. Frames are read one at a time, when
//! [`Connection::next`] is called; the driver has no queue of received frames.

mod connection;
mod line;
mod socket;

pub use connection::{Connection, Event};
pub use socket::{Dial, Frame, Opening, Socket};
