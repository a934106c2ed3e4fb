use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use ipnet::IpNet;

use crate::request::is_forwarded;

/// Parses a network of an option: `10.0.0.0/8`, or one address.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("'{text}' is not a network: write it like 10.0.0.0/8 or fd00::/8"))
}

/// The client of a request, as far as its address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// A client at this address.
    At(IpAddr),
    /// A program on this machine.
    Local,
    /// A client behind an unknown proxy, or behind one that does not name it.
    Unknown,
}

/// Returns the client of a request: the peer or, if that is a trusted proxy, the right-most address in X-Forwarded-For that
/// is not a trusted proxy, or else the outermost proxy. Where only proxies reach this port, `hops` is the place of the
/// client's address from the right.
pub(super) fn client(parts: &Parts, proxies: &[IpNet], hops: Option<NonZeroUsize>) -> Client {
    let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
        return Client::Local;
    };
    let peer = peer.ip().to_canonical();
    let is_proxy = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    let (mut client, mut is_known) = (peer, true);
    if let Some(hops) = hops {
        // A header with fewer entries, or without an address there, is not from our proxies.
        match forwarded_for(parts).rev().nth(hops.get() - 1).flatten().and_then(parse_address) {
            Some(address) => return Client::At(address),
            None => is_known = !is_forwarded(&parts.headers),
        }
    } else if is_proxy(&peer) {
        for word in forwarded_for(parts).rev() {
            // A trusted proxy writes addresses only.
            let Some(address) = word.and_then(parse_address) else {
                is_known = false;
                break;
            };
            client = address;
            if !is_proxy(&address) {
                break;
            }
        }
    } else if peer.is_loopback() {
        is_known = !is_forwarded(&parts.headers);
    }
    match is_known {
        false => Client::Unknown,
        // An address from a header does not prove that the client is on this machine.
        true if client.is_loopback() && !is_forwarded(&parts.headers) => Client::Local,
        true => Client::At(client),
    }
}

/// Several lines of a header form one list. Each entry is read by itself, `None` if it is not UTF-8, so that an entry of the
/// client cannot hide one that a proxy appended.
fn forwarded_for(parts: &Parts) -> impl DoubleEndedIterator<Item = Option<&str>> {
    let lines = parts.headers.get_all("x-forwarded-for").iter();
    let words = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.map(|word| std::str::from_utf8(word).ok().map(str::trim))
}

/// Parses an address, to which some proxies append a port.
fn parse_address(word: &str) -> Option<IpAddr> {
    let address = word.parse().ok().or_else(|| word.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(peer: &str, lines: &[&str], proxies: &str, hops: Option<usize>) -> String {
        let peer: SocketAddr = peer.parse().unwrap();
        let request = axum::http::Request::builder().extension(ConnectInfo(peer));
        // Each character is one byte, as in Latin-1.
        let bytes = |line: &str| line.chars().map(|letter| u8::try_from(letter).unwrap()).collect::<Vec<_>>();
        let request =
            lines.iter().fold(request, |request, line| request.header("X-Forwarded-For", bytes(line)));
        let proxies: Vec<_> = proxies
            .split(',')
            .filter(|text| !text.is_empty())
            .map(|text| parse_network(text).unwrap())
            .collect();
        let hops = hops.and_then(NonZeroUsize::new);
        match client(&request.body(()).unwrap().into_parts().0, &proxies, hops) {
            Client::At(address) => address.to_string(),
            Client::Local => "local".to_owned(),
            Client::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let ours = "10.0.0.0/8, fd00::/8";
        for (peer, lines, proxies, client) in [
            ("192.0.2.1:9", &[][..], "", "192.0.2.1"),
            ("192.0.2.1:9", &["198.51.100.7"], "", "192.0.2.1"),
            ("192.0.2.1:9", &["198.51.100.7"], ours, "192.0.2.1"),
            ("10.0.0.1:9", &["198.51.100.7"], ours, "198.51.100.7"),
            // Entries of the client itself are further left.
            ("10.0.0.1:9", &["1.1.1.1, 198.51.100.7, 10.0.0.2"], ours, "198.51.100.7"),
            ("10.0.0.1:9", &["1.1.1.1", "198.51.100.7, 10.0.0.2"], ours, "198.51.100.7"),
            ("10.0.0.1:9", &["198.51.100.7:4711"], ours, "198.51.100.7"),
            ("10.0.0.1:9", &["[2001:db8::1]:80"], ours, "2001:db8::1"),
            ("[::ffff:10.0.0.1]:9", &["::ffff:198.51.100.7"], ours, "198.51.100.7"),
            ("10.0.0.1:9", &["198.51.100.7, nonsense"], ours, "unknown"),
            ("10.0.0.1:9", &["\u{ff}, 198.51.100.7"], ours, "198.51.100.7"),
            ("10.0.0.1:9", &["\u{ff}", "198.51.100.7, 10.0.0.2"], ours, "198.51.100.7"),
            ("10.0.0.1:9", &["198.51.100.7, \u{ff}"], ours, "unknown"),
            // If all are trusted proxies, the outermost one counts: such an address gives no privilege.
            ("10.0.0.1:9", &[], ours, "10.0.0.1"),
            ("10.0.0.1:9", &["10.1.2.3"], ours, "10.1.2.3"),
            ("10.0.0.1:9", &["10.1.2.3, 10.4.5.6"], ours, "10.1.2.3"),
            ("127.0.0.1:9", &[], "", "local"),
            ("127.0.0.1:9", &["198.51.100.7"], "", "unknown"),
            ("127.0.0.1:9", &["198.51.100.7"], "127.0.0.1", "198.51.100.7"),
            ("127.0.0.1:9", &["127.0.0.1"], "127.0.0.1", "127.0.0.1"),
            ("127.0.0.1:9", &["::ffff:127.0.0.1"], "127.0.0.1", "127.0.0.1"),
            ("10.0.0.1:9", &["127.0.0.1"], ours, "127.0.0.1"),
            ("10.0.0.1:9", &["127.0.0.1, 10.0.0.2"], ours, "127.0.0.1"),
            ("10.0.0.1:9", &["::1"], ours, "::1"),
            ("127.0.0.1:9", &[], "127.0.0.1", "local"),
            ("[::1]:9", &[], "", "local"),
        ] {
            assert_eq!(client_of(peer, lines, proxies, None), client, "{peer} {lines:?} {proxies}");
        }
    }

    #[test]
    fn with_hops_the_address_is_counted_from_the_right() {
        for (peer, lines, hops, client) in [
            ("10.0.0.1:9", &["203.0.113.9, 10.1.2.3"][..], 1, "10.1.2.3"),
            ("192.0.2.1:9", &["203.0.113.9", "198.51.100.7"], 1, "198.51.100.7"),
            ("10.0.0.1:9", &["203.0.113.9, 198.51.100.7, 10.1.2.3"], 2, "198.51.100.7"),
            ("10.0.0.1:9", &["198.51.100.7"], 2, "unknown"),
            ("10.0.0.1:9", &["198.51.100.7, nonsense"], 1, "unknown"),
            ("10.0.0.1:9", &[], 1, "10.0.0.1"),
            ("10.0.0.1:9", &["127.0.0.1"], 1, "127.0.0.1"),
            ("127.0.0.1:9", &[], 1, "local"),
        ] {
            assert_eq!(client_of(peer, lines, "", Some(hops)), client, "{peer} {lines:?} {hops}");
        }
    }

    #[test]
    fn the_error_of_an_unreadable_network_shows_how_to_write_one() {
        for text in ["", "10.0.0.0/33", "private"] {
            assert!(parse_network(text).unwrap_err().contains("10.0.0.0/8"), "{text}");
        }
    }
}
