use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that Linux assigns to outgoing connections (from 32768 on). A client that dials a dead port of that range
/// again and again may be assigned that very port, and is then connected to itself while the server cannot bind the port.
const PORTS: Range<u16> = 20_000..32_000;
/// Maximum attempts to find a free port.
const TRIES: usize = 100;

/// Returns a loopback port without a listener. Another process may take it before it is used, so a caller that can retry
/// with another one should.
///
/// # Panics
/// When no free port is found.
pub fn free_port() -> u16 {
    // Ports are tried in order from a random start, so that no two tests of a process get the same port.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(PORTS)));
    let next = || PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
    (0..TRIES)
        .map(|_| next())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free loopback port")
}
