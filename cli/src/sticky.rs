//! The cookie that keeps a browser on one replica, by the same name at every front door.

use axum::http::{HeaderMap, HeaderValue, header};

/// The name of the cookie; its value is the name of a replica.
pub(crate) const COOKIE: &str = "REALTIMESERVERID";

/// Returns the replica that a request names.
pub(crate) fn replica_of(headers: &HeaderMap) -> Option<&str> {
    let lists = headers.get_all(header::COOKIE).into_iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(';')).find_map(value)
}

/// Returns the cookie that a response sets, as a client sends it back.
pub(crate) fn cookie_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let cookies = headers.get_all(header::SET_COOKIE).into_iter().filter_map(|set| set.to_str().ok());
    let replica = cookies.filter_map(|set| set.split(';').next()).find_map(value)?;
    HeaderValue::try_from(format!("{COOKIE}={replica}")).ok()
}

/// Returns the header that sets the cookie, until the browser closes.
pub(crate) fn set(replica: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{COOKIE}={replica}; Path=/; HttpOnly; SameSite=Lax")).ok()
}

fn value(pair: &str) -> Option<&str> {
    pair.trim().strip_prefix(COOKIE)?.strip_prefix('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn is_found_among_others() {
        let replica_in =
            |lists: &[&'static str]| replica_of(&headers(header::COOKIE, lists)).map(ToOwned::to_owned);
        assert_eq!(replica_in(&["a=b; REALTIMESERVERID=bff-2;c=d"]).as_deref(), Some("bff-2"));
        assert_eq!(replica_in(&["a=b", "REALTIMESERVERID=bff-2"]).as_deref(), Some("bff-2"));
        assert_eq!(replica_in(&["XREALTIMESERVERID=bff-2; REALTIMESERVERIDS=bff-1"]), None);
        assert_eq!(replica_in(&[]), None);
    }

    #[test]
    fn the_cookie_of_a_door_is_sent_back() {
        let set = set("bff-2").unwrap();
        assert_eq!(set, "REALTIMESERVERID=bff-2; Path=/; HttpOnly; SameSite=Lax");
        let mut answer = headers(header::SET_COOKIE, &["other=1; Path=/"]);
        assert_eq!(cookie_of(&answer), None);
        answer.append(header::SET_COOKIE, set);
        assert_eq!(cookie_of(&answer).unwrap(), "REALTIMESERVERID=bff-2");
    }
}
