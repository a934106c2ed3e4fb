//! Whether a request was made on this machine: only such requests have rights without a key.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{Version, header};

use crate::request::is_forwarded;

/// Names that always mean this machine. A page whose own name resolves to this machine sends that name in `Host`.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Whether a program or a page of this machine made this request itself. A proxy on this machine has a loopback address too,
/// and so has a browser with a page whose name resolves to this machine.
pub(crate) fn is_local(parts: &Parts) -> bool {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let is_loopback = peer.is_some_and(|peer| peer.0.ip().to_canonical().is_loopback());
    // nginx uses HTTP/1.0 by default, names the upstream in `Host`, and adds no forwarding header.
    is_loopback && parts.version != Version::HTTP_10 && names_loopback(parts) && !is_forwarded(&parts.headers)
}

/// Whether all authorities in the request name this machine.
fn names_loopback(parts: &Parts) -> bool {
    let given = parts.headers.get_all(header::HOST).iter().map(|host| host.to_str().ok());
    let mut named = given.chain(parts.uri.authority().map(|one| Some(one.as_str()))).peekable();
    let is_here = |text: Option<&str>| {
        let authority = text.and_then(|text| text.parse::<Authority>().ok());
        authority.is_some_and(|one| {
            !one.as_str().contains('@')
                && LOOPBACK_NAMES.iter().any(|here| one.host().eq_ignore_ascii_case(here))
        })
    };
    named.peek().is_some() && named.all(is_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(peer: &str, host: Option<&str>, more: &[(&str, &str)]) -> bool {
        let peer: SocketAddr = peer.parse().unwrap();
        let request = axum::http::Request::builder().uri("/").extension(ConnectInfo(peer));
        let request = host.iter().fold(request, |request, host| request.header("host", *host));
        let request = more.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        is_local(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_request_from_elsewhere_or_through_a_proxy_is_not_local() {
        for peer in ["127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            for host in ["localhost", "LocalHost:8081", "127.0.0.1:8470", "[::1]", "[::1]:80"] {
                assert!(local(peer, Some(host), &[]), "{peer} {host}");
            }
        }
        for host in [
            "evil.example",
            "evil.example:8470",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "push.example.com",
            "a@localhost:x",
            "",
        ] {
            assert!(!local("127.0.0.1:9", Some(host), &[]), "{host}");
        }
        assert!(!local("127.0.0.1:9", None, &[]), "without a Host");
        assert!(!local("192.0.2.1:9", Some("localhost"), &[]), "another machine");
        for name in
            ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"]
        {
            assert!(!local("127.0.0.1:9", Some("localhost"), &[(name, "127.0.0.1")]), "{name}");
        }
        assert!(!local("127.0.0.1:9", Some("localhost"), &[("host", "evil.example")]), "two hosts");
    }

    #[test]
    fn a_proxy_without_headers_and_an_absolute_uri_are_recognized() {
        let peer = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9)));
        let request = |uri: &str, version| {
            let request = axum::http::Request::builder().uri(uri).version(version).extension(peer);
            request.header("host", "127.0.0.1:8081").body(()).unwrap().into_parts().0
        };
        assert!(is_local(&request("http://localhost:8081/", Version::HTTP_11)));
        assert!(!is_local(&request("http://evil.example/", Version::HTTP_11)));
        assert!(!is_local(&request("/", Version::HTTP_10)));
    }
}
