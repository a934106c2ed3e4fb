//! Decides which pages may connect. A browser names the origin of the page that opens a WebSocket, and sends its cookies
//! along for any page; programs that are not browsers name no origin.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use carillon_service::words;
use http::uri::Authority;
use http::{HeaderMap, header};
use thiserror::Error;

/// Maximum origins in ALLOWED_ORIGINS.
pub const ORIGINS_MAX: usize = 64;

/// The origins whose pages may connect. A request without an origin is always allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// A page from the host and port that the request goes to.
    #[default]
    Same,
    /// A page of one of these origins only.
    Listed(Vec<Origin>),
    /// Any page.
    Any,
}

/// An origin as a browser sends it: scheme, host and port (RFC 6454). The default port of the scheme counts as absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

/// Why a page may not connect: a 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OriginError {
    /// Not exactly one origin, or the `null` of a page without one.
    #[error("the Origin header does not name an origin")]
    Unclear,
    /// A host other than that of the request.
    #[error("a page of another origin may not connect here: name its origin in ALLOWED_ORIGINS")]
    Other,
    /// An origin that is not listed.
    #[error("this origin is not in ALLOWED_ORIGINS")]
    NotListed,
}

impl Origins {
    /// Parses a list; an empty one is [`Origins::Same`], one with `*` is [`Origins::Any`].
    ///
    /// # Errors
    /// Names the entry that is not an origin.
    pub fn new(list: &[String]) -> Result<Self, String> {
        if words(list).any(|word| word == "*") {
            return Ok(Self::Any);
        }
        let origins: Vec<Origin> = words(list)
            .map(|word| word.strip_suffix('/').unwrap_or(word).parse())
            .collect::<Result<_, _>>()?;
        match origins.len() {
            0 => Ok(Self::Same),
            1..=ORIGINS_MAX => Ok(Self::Listed(origins)),
            count => Err(format!("{count} origins, at most {ORIGINS_MAX}")),
        }
    }

    /// Checks the origin of a request with these headers. `X-Forwarded-Host` is ignored: behind a proxy that changes `Host`,
    /// the list is needed.
    ///
    /// # Errors
    /// When its page may not connect.
    pub fn allow(&self, headers: &HeaderMap) -> Result<(), OriginError> {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = given.next() else { return Ok(()) };
        if *self == Self::Any {
            return Ok(());
        }
        let is_one = given.next().is_none();
        let origin = origin.to_str().ok().filter(|_| is_one).and_then(|origin| origin.parse::<Origin>().ok());
        let origin = origin.ok_or(OriginError::Unclear)?;
        match self {
            Self::Listed(list) if list.contains(&origin) => Ok(()),
            Self::Listed(_) => Err(OriginError::NotListed),
            Self::Same if origin.is_at(headers) => Ok(()),
            _ => Err(OriginError::Other),
        }
    }
}

impl Origin {
    fn new(scheme: &str, authority: &str) -> Option<Self> {
        let authority: Authority = authority.parse().ok()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host();
        let after = authority.as_str().strip_prefix(host)?;
        // Other text than a number, and empty text, is not a port.
        let port = match after.strip_prefix(':') {
            None => None,
            Some(port) => Some(port.parse().ok()?),
        };
        let host = match host.strip_prefix('[') {
            Some(address) => format!("[{}]", address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
            None => host.to_ascii_lowercase(),
        };
        let scheme = scheme.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Some(Self { scheme, host, port: port.filter(|port| Some(*port) != usual) })
    }

    /// Whether a page of this origin came from the host of the request. Behind a proxy, the browser's scheme is unknown, so
    /// `Host` is read with the scheme of the origin.
    fn is_at(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.and_then(|host| Self::new(&self.scheme, host)).is_some_and(|own| own == *self)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_scheme = |scheme: &str| {
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        };
        let parts = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme));
        let origin = parts
            .filter(|_| !text.contains('*'))
            .and_then(|(scheme, authority)| Self::new(scheme, authority));
        origin.ok_or_else(|| {
            format!(
                "'{text}' is not an origin: write scheme://host or scheme://host:port, without patterns and paths"
            )
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn origins(list: &[&str]) -> Result<Origins, String> {
        Origins::new(&list.iter().map(|&one| one.to_owned()).collect::<Vec<_>>())
    }

    fn headers(host: &str, origin: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        for one in origin {
            headers.append(header::ORIGIN, HeaderValue::from_bytes(one.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn without_a_list_a_page_connects_to_its_own_host() {
        let same = origins(&["", " "]).unwrap();
        assert_eq!(same, Origins::Same);
        for (host, origin, expected) in [
            ("example.com", "https://example.com", Ok(())),
            ("example.com", "http://example.com", Ok(())),
            ("Example.COM", "https://EXAMPLE.com", Ok(())),
            ("example.com:443", "https://example.com", Ok(())),
            ("example.com", "https://example.com:443", Ok(())),
            ("example.com:80", "http://example.com", Ok(())),
            ("example.com:80", "https://example.com", Err(OriginError::Other)),
            ("example.com:8080", "http://example.com:8080", Ok(())),
            ("example.com:8080", "http://example.com", Err(OriginError::Other)),
            ("example.com:8080", "http://example.com:8081", Err(OriginError::Other)),
            ("example.com", "http://example.com:8080", Err(OriginError::Other)),
            ("example.com", "https://evil.com", Err(OriginError::Other)),
            ("example.com", "https://example.com.evil.com", Err(OriginError::Other)),
            ("example.com", "https://sub.example.com", Err(OriginError::Other)),
            ("127.0.0.1:8081", "http://127.0.0.1:8081", Ok(())),
            ("127.0.0.1:8081", "http://localhost:8081", Err(OriginError::Other)),
            ("[::1]:8081", "http://[::1]:8081", Ok(())),
            ("[::1]:8081", "http://[0:0:0:0:0:0:0:1]:8081", Ok(())),
            ("[::1]", "http://[::1]", Ok(())),
            ("[::1]:8081", "http://[::2]:8081", Err(OriginError::Other)),
            ("example.com", "null", Err(OriginError::Unclear)),
            ("example.com", "", Err(OriginError::Unclear)),
            ("example.com", "example.com", Err(OriginError::Unclear)),
            ("example.com", "https://example.com/", Err(OriginError::Unclear)),
            ("example.com", "https://evil.com@example.com", Err(OriginError::Unclear)),
            ("example.com", "https://example.com https://evil.com", Err(OriginError::Unclear)),
            ("example.com", "https://example.com:", Err(OriginError::Unclear)),
            ("example.com", "https://example.com:99999", Err(OriginError::Unclear)),
            ("example.com", "https://example.c\u{f6}m", Err(OriginError::Unclear)),
            ("evil.com@example.com", "https://example.com", Err(OriginError::Other)),
        ] {
            assert_eq!(same.allow(&headers(host, &[origin])), expected, "{origin} at {host}");
        }
        assert_eq!(
            same.allow(&headers("example.com", &["https://example.com"; 2])),
            Err(OriginError::Unclear)
        );
        assert_eq!(same.allow(&headers("example.com", &[])), Ok(()), "no browser");
        let mut forwarded = headers("inside:8081", &["https://example.com"]);
        forwarded.insert("x-forwarded-host", "example.com".parse().unwrap());
        assert_eq!(same.allow(&forwarded), Err(OriginError::Other));
        forwarded.remove(header::HOST);
        assert_eq!(same.allow(&forwarded), Err(OriginError::Other));
    }

    #[test]
    fn a_list_names_all_allowed_origins() {
        let listed = origins(&["https://example.com:443/", " http://[0::1]:8080", "app://main"]).unwrap();
        let Origins::Listed(list) = &listed else { panic!("a list") };
        let written: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["https://example.com", "http://[::1]:8080", "app://main"]);
        for (origin, expected) in [
            ("https://example.com", Ok(())),
            ("HTTPS://Example.com:443", Ok(())),
            ("http://[::1]:8080", Ok(())),
            ("app://main", Ok(())),
            ("http://example.com", Err(OriginError::NotListed)),
            ("http://example.com:443", Err(OriginError::NotListed)),
            ("https://example.com:8443", Err(OriginError::NotListed)),
            ("http://[::1]", Err(OriginError::NotListed)),
            ("https://here.com", Err(OriginError::NotListed)),
            ("null", Err(OriginError::Unclear)),
        ] {
            assert_eq!(listed.allow(&headers("here.com", &[origin])), expected, "{origin}");
        }
        assert_eq!(listed.allow(&headers("here.com", &[])), Ok(()));
    }

    #[test]
    fn a_star_allows_all_and_anything_else_must_be_an_origin() {
        let any = origins(&["https://example.com", "*"]).unwrap();
        assert_eq!(any, Origins::Any);
        for origin in ["https://evil.com", "null", "?"] {
            assert_eq!(any.allow(&headers("example.com", &[origin])), Ok(()), "{origin}");
        }
        for wrong in [
            "example.com",
            "null",
            "https://",
            "https://*.example.com",
            "https://a.com/path",
            "https://a@b.com",
            "://a",
            "1a://b",
            "https://a.com:0x1",
            "http://[::1",
            "http://[x]",
        ] {
            assert!(origins(&[wrong]).unwrap_err().contains("is not an origin"), "{wrong}");
        }
        assert!(origins(&["https://a.com"; ORIGINS_MAX + 1]).unwrap_err().contains("at most 64"));
    }
}
