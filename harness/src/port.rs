use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below the ports that Linux gives to outgoing connections (from 32768 on). A client that dials a
/// dead port of that range again and again can be given that very port, and is then connected to
/// itself while the server cannot have its port back.
const PORTS: Range<u16> = 20_000..32_000;
/// So many taken ports in a row are no accident.
const TRIES: usize = 100;

/// A loopback port that nobody listens on now. Another process may take it before it is used, so a
/// caller that can retry with another one should.
///
/// # Panics
/// When no free port is found.
#[must_use]
pub fn free_port() -> u16 {
    (0..TRIES)
        .map(|_| fastrand::u16(PORTS))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free loopback port")
}
