use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use ipnet::IpNet;

/// What one subscriber of a network provider gets of IPv6, and can take addresses from at will.
const IPV6_PREFIX_BITS: u8 = 64;

/// A network as options are written: `10.0.0.0/8`, or one address.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("'{text}' is no network: write it like 10.0.0.0/8 or fd00::/8"))
}

/// The address of whoever makes a request: the peer's, or where that is a proxy of ours the last one in
/// X-Forwarded-For that is none. `None` where all that is known is this machine or a proxy of ours: who is
/// behind it cannot be told apart, and is not counted as one client.
pub(super) fn client(parts: &Parts, proxies: &[IpNet]) -> Option<IpAddr> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip().to_canonical();
    let is_proxy = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    let mut client = peer;
    if is_proxy(&peer) {
        for word in forwarded_for(parts).rev() {
            // Whoever writes something else there is not one of ours.
            let Some(address) = word.and_then(parse_address) else { break };
            client = address;
            if !is_proxy(&address) {
                break;
            }
        }
    }
    Some(client).filter(|address| !address.is_loopback() && !is_proxy(address))
}

/// What an address is counted by.
pub(super) fn network(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::from(address),
        IpAddr::V6(_) => {
            IpNet::new(address, IPV6_PREFIX_BITS).map_or(IpNet::from(address), |net| net.trunc())
        }
    }
}

/// Several lines of a header are one list. Each word is read by itself, `None` for one that is no text: what a
/// client wrote does not hide what a proxy put behind it.
fn forwarded_for(parts: &Parts) -> impl DoubleEndedIterator<Item = Option<&str>> {
    let lines = parts.headers.get_all("x-forwarded-for").iter();
    let words = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.map(|word| std::str::from_utf8(word).ok().map(str::trim))
}

/// Some proxies add the port.
fn parse_address(word: &str) -> Option<IpAddr> {
    let address = word.parse().ok().or_else(|| word.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(peer: &str, lines: &[&str], proxies: &str) -> Option<String> {
        let peer: SocketAddr = peer.parse().unwrap();
        let request = axum::http::Request::builder().extension(ConnectInfo(peer));
        // Each letter is one byte, as of Latin-1.
        let bytes = |line: &str| line.chars().map(|letter| u8::try_from(letter).unwrap()).collect::<Vec<_>>();
        let request =
            lines.iter().fold(request, |request, line| request.header("X-Forwarded-For", bytes(line)));
        let proxies: Vec<_> = proxies
            .split(',')
            .filter(|text| !text.is_empty())
            .map(|text| parse_network(text).unwrap())
            .collect();
        client(&request.body(()).unwrap().into_parts().0, &proxies).map(|address| address.to_string())
    }

    #[test]
    fn only_proxies_of_ours_are_believed() {
        let ours = "10.0.0.0/8, fd00::/8";
        for (peer, lines, proxies, client) in [
            ("192.0.2.1:9", &[][..], "", Some("192.0.2.1")),
            ("192.0.2.1:9", &["198.51.100.7"], "", Some("192.0.2.1")),
            ("192.0.2.1:9", &["198.51.100.7"], ours, Some("192.0.2.1")),
            ("10.0.0.1:9", &["198.51.100.7"], ours, Some("198.51.100.7")),
            // What the client itself wrote stands further left.
            ("10.0.0.1:9", &["1.1.1.1, 198.51.100.7, 10.0.0.2"], ours, Some("198.51.100.7")),
            ("10.0.0.1:9", &["1.1.1.1", "198.51.100.7", "10.0.0.2"], ours, Some("198.51.100.7")),
            ("10.0.0.1:9", &["198.51.100.7:4711"], ours, Some("198.51.100.7")),
            ("10.0.0.1:9", &["[2001:db8::1]:80"], ours, Some("2001:db8::1")),
            ("[::ffff:10.0.0.1]:9", &["::ffff:198.51.100.7"], ours, Some("198.51.100.7")),
            ("10.0.0.1:9", &["198.51.100.7, nonsense"], ours, None),
            ("10.0.0.1:9", &["\u{ff}, 198.51.100.7"], ours, Some("198.51.100.7")),
            ("10.0.0.1:9", &["\u{ff}", "198.51.100.7, 10.0.0.2"], ours, Some("198.51.100.7")),
            ("10.0.0.1:9", &["198.51.100.7, \u{ff}"], ours, None),
            ("10.0.0.1:9", &[], ours, None),
            ("10.0.0.1:9", &["10.1.2.3"], ours, None),
            ("127.0.0.1:9", &["198.51.100.7"], "", None),
            ("127.0.0.1:9", &["198.51.100.7"], "127.0.0.1", Some("198.51.100.7")),
            ("[::1]:9", &[], "", None),
        ] {
            assert_eq!(client_of(peer, lines, proxies).as_deref(), client, "{peer} {lines:?} {proxies}");
        }
    }

    #[test]
    fn an_ipv6_subscriber_is_one_client() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[test]
    fn a_network_that_cannot_be_read_says_how_to_write_one() {
        for text in ["", "10.0.0.0/33", "private"] {
            assert!(parse_network(text).unwrap_err().contains("10.0.0.0/8"), "{text}");
        }
    }
}
