//! Parts of requests outside their bodies: query parameters, subprotocols, and the media type of the body.

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};

use crate::refusal::Refusal;

/// Headers that proxies add, beside those that begin with [`FORWARDED`].
const OF_PROXIES: [&str; 3] = ["forwarded", "via", "x-real-ip"];
const FORWARDED: &str = "x-forwarded-";

/// Returns the value of a query parameter; an empty one counts as absent.
pub(crate) fn query(parts: &Parts, name: &str) -> Option<String> {
    queries(parts, name).next()
}

/// Returns all values of a query parameter that are not empty.
pub(crate) fn queries<'a>(parts: &'a Parts, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    pairs.filter(move |(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.into_owned())
}

/// Returns the subprotocols that a client names.
pub(crate) fn subprotocols(parts: &Parts) -> impl Iterator<Item = &str> {
    let lines = parts.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
}

/// Returns the rest of a subprotocol with a prefix, as in `bearer.<token>`.
pub(crate) fn secret<'a>(parts: &'a Parts, prefix: &str) -> Option<&'a str> {
    subprotocols(parts).find_map(|name| name.strip_prefix(prefix)).filter(|secret| !secret.is_empty())
}

/// Refuses a request whose media type is not JSON, which a form of a page of another origin cannot send.
pub(crate) fn require_json(parts: &Parts, detail: &str) -> Result<(), Refusal> {
    let value =
        parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported media type", detail))
}

/// Whether a header shows that a proxy has forwarded the request.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(FORWARDED) || OF_PROXIES.contains(&name.as_str()))
}
