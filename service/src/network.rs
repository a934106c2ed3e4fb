use std::net::IpAddr;

use ipnet::IpNet;

/// A provider gives one subscriber a network of this size, within which it can use any address.
const IPV6_PREFIX_BITS: u8 = 64;

/// Returns the network that an address counts against.
pub fn network(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::from(address),
        IpAddr::V6(_) => {
            IpNet::new(address, IPV6_PREFIX_BITS).map_or(IpNet::from(address), |net| net.trunc())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_subscriber_is_one_client() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
