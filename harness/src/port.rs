use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

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
    // One after the other, from anywhere: a port that one test was given and has not used yet is not given to another.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(PORTS)));
    let next = || PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
    (0..TRIES)
        .map(|_| next())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free loopback port")
}
