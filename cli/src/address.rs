use std::fmt;
use std::str::FromStr;

use url::Url;

/// The address of a Carillon: of its front door, or of one replica.
#[derive(Clone, Debug)]
pub(crate) struct Address(Url);

impl Address {
    /// The address of the demo.
    pub(crate) const DEFAULT: &str = "http://127.0.0.1:8080";

    /// Returns the URL to post notifications to.
    pub(crate) fn notifications(&self) -> Url {
        self.join(&["api", "notifications"])
    }

    /// Returns the URL of a reader's socket with these topics, which resumes from the cursor if there is one.
    pub(crate) fn socket(&self, since: Option<&str>, topics: &[String]) -> Url {
        let mut url = self.join(&["ws"]);
        let scheme = if self.is_tls() { "wss" } else { "ws" };
        url.set_scheme(scheme).expect("http and ws are both of the web");
        if let Some(since) = since {
            url.query_pairs_mut().append_pair("since", since);
        }
        for topic in topics {
            url.query_pairs_mut().append_pair("topic", topic);
        }
        url
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }

    fn join(&self, names: &[&str]) -> Url {
        let mut url = self.0.clone();
        url.path_segments_mut().expect("an address of the web has a path").pop_if_empty().extend(names);
        url
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = |what: &str| format!("{what}: write it like {} or https://host/path", Self::DEFAULT);
        let mut url = Url::parse(text).map_err(|error| fault(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(fault("neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault("a user or password in an address would appear in messages"));
        }
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self(url))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_to_the_api_and_to_the_socket() {
        for (text, api, socket) in [
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080/api/notifications",
                "ws://127.0.0.1:8080/ws?since=e.1-0",
            ),
            (
                "https://host/below/?x=1#y",
                "https://host/below/api/notifications",
                "wss://host/below/ws?since=e.1-0",
            ),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.notifications().as_str(), api);
            assert_eq!(address.socket(Some("e.1-0"), &[]).as_str(), socket);
        }
        let address: Address = "http://[::1]:8080/".parse().unwrap();
        assert_eq!(address.to_string(), "http://[::1]:8080");
        assert_eq!(address.socket(None, &[]).as_str(), "ws://[::1]:8080/ws");
        let topics = ["c d".to_owned(), "e".to_owned()];
        assert_eq!(address.socket(Some("a&b"), &topics).query(), Some("since=a%26b&topic=c+d&topic=e"));
    }

    #[test]
    fn refuses_other_texts() {
        for text in
            ["", "127.0.0.1:8080", "localhost:8080", "ftp://host", "http://", "http://user:secret@host"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
