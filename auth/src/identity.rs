use anyhow::bail;
use carillon_service::{filled, words};
use http::request::Parts;
use http::{HeaderMap, header};

use crate::origin::Origins;
use crate::token::{Tokens, TopicPattern};

pub use crate::options::IdentityOptions;

/// The parsed options.
#[derive(Clone, Debug)]
pub struct Identities {
    /// Verifies tokens. The caller must spawn [`Tokens::run`].
    pub tokens: Tokens,
    /// The origins whose pages may connect.
    pub origins: Origins,
    /// The cookie that may hold a token.
    pub cookie: Option<String>,
    /// The topics that any client may read.
    pub public_topics: Vec<TopicPattern>,
    /// Whether users may send when their token has no claim `send`.
    pub people_send: bool,
}

impl Identities {
    /// Parses keys, origins and topics.
    ///
    /// # Errors
    /// Names every unusable option, with the reason.
    pub fn new(options: &IdentityOptions) -> anyhow::Result<Self> {
        let mut faults = Vec::new();
        let tokens = Tokens::new(options).map_err(|error| faults.push(format!("{error:#}"))).ok();
        let origins = Origins::new(&options.allowed_origins);
        let origins = origins.map_err(|fault| faults.push(format!("ALLOWED_ORIGINS: {fault}"))).ok();
        let mut public_topics = Vec::new();
        for topic in words(&options.public_topics) {
            match topic.parse() {
                Ok(topic) => public_topics.push(topic),
                Err(fault) => faults.push(format!("PUBLIC_TOPICS: {fault}")),
            }
        }
        let cookie = options.session_cookie.as_deref().and_then(filled).map(str::to_owned);
        if cookie.is_some() && matches!(origins, Some(Origins::Any)) {
            // A browser sends its cookies with a WebSocket that any page opens.
            faults.push("ALLOWED_ORIGINS: with SESSION_COOKIE, * would let every page read as its visitor: name the origins".to_owned());
        }
        match (tokens, origins) {
            (Some(tokens), Some(origins)) if faults.is_empty() => {
                Ok(Self { tokens, origins, cookie, public_topics, people_send: options.people_send })
            }
            _ => bail!("{}", faults.join("\n")),
        }
    }

    /// Returns the token of a request: from `Authorization: Bearer`, else from `?token=`, else from the cookie.
    pub fn token_of<'a>(&self, parts: &'a Parts) -> Option<&'a str> {
        let cookie = || cookie(&parts.headers, self.cookie.as_deref()?);
        Self::explicit_token(parts).or_else(cookie)
    }

    /// Returns the token that a request names explicitly, which no browser adds by itself.
    pub fn explicit_token(parts: &Parts) -> Option<&str> {
        bearer(&parts.headers).or_else(|| query_token(parts))
    }
}

/// Returns the token in `Authorization: Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") { filled(token) } else { None }
}

/// A token has only characters that need no escaping in a URL.
fn query_token(parts: &Parts) -> Option<&str> {
    let pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, _)| *name == "token").find_map(|(_, token)| filled(token))
}

/// Returns the value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(given, _)| *given == name).find_map(|(_, token)| filled(token.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn identities(cookie: Option<&str>) -> Identities {
        let options =
            IdentityOptions { session_cookie: cookie.map(str::to_owned), ..IdentityOptions::default() };
        Identities::new(&options).unwrap()
    }

    #[test]
    fn a_token_comes_from_the_header_or_the_query_or_the_cookie() {
        for (uri, headers, expected) in [
            ("/ws", vec![], None),
            ("/ws?token=", vec![("authorization", "Bearer ")], None),
            ("/ws?token=q", vec![("authorization", "Bearer h"), ("cookie", "jwt=c")], Some("h")),
            ("/ws?since=1&token=q", vec![("cookie", "jwt=c")], Some("q")),
            (
                "/ws?xtoken=q",
                vec![("authorization", "Basic h"), ("cookie", "a=b; jwt=\"c\"; jwt=d")],
                Some("c"),
            ),
            ("/ws", vec![("cookie", "xjwt=x"), ("cookie", "jwt=; jwt=c")], Some("c")),
            ("/ws", vec![("authorization", "bearer  h ")], Some("h")),
            ("/ws", vec![("authorization", "h")], None),
            ("/ws", vec![("cookie", "jwt")], None),
        ] {
            let request = headers
                .iter()
                .fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(identities(Some("jwt")).token_of(&parts), expected, "{uri} {headers:?}");
        }
        let (parts, ()) = Request::get("/ws").header("cookie", "jwt=c").body(()).unwrap().into_parts();
        assert_eq!(identities(None).token_of(&parts), None);
        assert_eq!(identities(Some(" ")).token_of(&parts), None);
    }

    #[test]
    fn every_fault_is_named_at_once_and_no_secret_is() {
        let options = IdentityOptions {
            jwt_secret: vec!["hunter2".into()],
            jwt_public_key: Some("/nowhere/key.pem".to_owned()),
            jwks_url: Some("ftp://x".to_owned()),
            allowed_origins: vec!["example.com".to_owned()],
            public_topics: vec!["x".repeat(200)],
            ..IdentityOptions::default()
        };
        let error = Identities::new(&options).unwrap_err().to_string();
        for (line, begins) in error.lines().zip([
            "JWT_SECRET: a secret has at least 32",
            "JWT_PUBLIC_KEY: ",
            "JWKS_URL: ",
            "ALLOWED_ORIGINS: ",
            "PUBLIC_TOPICS: ",
        ]) {
            assert!(line.starts_with(begins), "{line}");
        }
        assert_eq!(error.lines().count(), 5, "{error}");
        assert!(!error.contains("hunter2") && !format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn a_cookie_needs_named_origins() {
        let any = |cookie: Option<&str>| IdentityOptions {
            session_cookie: cookie.map(str::to_owned),
            allowed_origins: vec!["*".to_owned()],
            ..IdentityOptions::default()
        };
        assert!(Identities::new(&any(None)).is_ok());
        assert!(Identities::new(&any(Some("jwt"))).unwrap_err().to_string().contains("SESSION_COOKIE"));
    }
}
