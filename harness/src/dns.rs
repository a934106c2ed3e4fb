use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Maximum bytes of a query, which has one name of at most 255 bytes.
const QUERY_MAX_BYTES: usize = 512;
/// The header of a message.
const HEADER_BYTES: usize = 12;
/// The end of a question: its type and its class.
const QUESTION_TAIL_BYTES: usize = 4;
const TYPE_A: [u8; 2] = [0, 1];
const CLASS_INTERNET: [u8; 2] = [0, 1];
/// The flags of a response to a recursive query, without an error.
const ANSWERED: [u8; 2] = [0x81, 0x80];
/// A pointer to the name of the question.
const SAME_NAME: [u8; 2] = [0xc0, 0x0c];

/// A DNS server that returns one list of IPv4 addresses for every name, with a TTL of zero: the addresses of a name can
/// change at any time. It ends when it is dropped.
#[derive(Debug)]
pub struct Dns {
    addr: SocketAddr,
    addresses: Arc<Mutex<Vec<Ipv4Addr>>>,
    _stop: DropGuard,
}

impl Dns {
    /// Starts a server on a free loopback port.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(addresses: &[Ipv4Addr]) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port for the DNS server");
        let addr = socket.local_addr().expect("the address of the DNS server");
        let addresses = Arc::new(Mutex::new(addresses.to_vec()));
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(serve(socket, Arc::clone(&addresses), stop.clone()));
        Self { addr, addresses, _stop: stop.drop_guard() }
    }

    /// Returns its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sets the addresses that it returns.
    pub fn set(&self, addresses: &[Ipv4Addr]) {
        *self.addresses.lock() = addresses.to_vec();
    }
}

async fn serve(socket: UdpSocket, addresses: Arc<Mutex<Vec<Ipv4Addr>>>, stop: CancellationToken) {
    let mut query = [0; QUERY_MAX_BYTES];
    loop {
        let (length, client) = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut query) => match received {
                Ok(received) => received,
                Err(_) => continue,
            },
        };
        let known = addresses.lock().clone();
        if let Some(reply) = reply(&query[..length], &known) {
            // A client that is gone needs no reply.
            let _ = socket.send_to(&reply, client).await;
        }
    }
}

/// Returns the reply to a query; `None` for other bytes.
fn reply(query: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let mut end = HEADER_BYTES;
    while let label @ 1.. = *query.get(end)? {
        end += usize::from(label) + 1;
    }
    let question = query.get(HEADER_BYTES..=end + QUESTION_TAIL_BYTES)?;
    let asks_for_ipv4 = question.ends_with(&[TYPE_A, CLASS_INTERNET].concat());
    let addresses = if asks_for_ipv4 { addresses } else { &[] };
    let count = u16::try_from(addresses.len()).ok()?.to_be_bytes();
    let mut reply = [&query[..2], &ANSWERED, &[0, 1], &count, &[0; 4], question].concat();
    for address in addresses {
        let (seconds, length) = ([0; 4], [0, 4]);
        reply.extend(
            [&SAME_NAME[..], &TYPE_A, &CLASS_INTERNET, &seconds, &length, &address.octets()].concat(),
        );
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_its_addresses_for_every_name_and_no_other_kind() {
        let query =
            |kind: u8| [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3][..], b"bff", &[0, 0, kind, 0, 1]].concat();
        let address = Ipv4Addr::new(127, 0, 0, 2);
        let answer = reply(&query(1), &[address]).expect("an answer");
        assert_eq!(answer[..8], [7, 7, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[12..21], *b"\x03bff\0\0\x01\0\x01");
        assert_eq!(answer[21..], [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 2]);
        let none = reply(&query(28), &[address]).expect("an answer");
        assert_eq!((none[..8].to_vec(), none.len()), (vec![7, 7, 0x81, 0x80, 0, 1, 0, 0], 21));
        assert_eq!(reply(&query(1)[..14], &[address]), None, "cut short");
    }
}
