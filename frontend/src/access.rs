//! The credentials that the page sends to the server: none, a browser's session, or a signed-in user's token.

use carillon_protocol::http::SignedIn;
use carillon_protocol::{Fields, to_json};

use crate::storage::Kept;

const PASS_KEY: &str = "carillon-pass";
const SESSION_KEY: &str = "carillon-session";

/// What the page shows the server with everything that it asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Of the signed-in user: for this tab, so that two tabs may be two people.
    pub pass: Option<SignedIn>,
    /// Of the browser: for all its tabs, once it has started a job.
    pub session: Option<String>,
}

impl Access {
    /// Returns the stored credentials.
    pub fn kept() -> Self {
        let pass = Kept::InTab.read(PASS_KEY).and_then(|json| SignedIn::read(&Fields::read(&json)?));
        Self { pass, session: Kept::OnDevice.read(SESSION_KEY) }
    }

    /// Stores the credentials for the next load of the page.
    pub fn keep(&self) {
        Kept::InTab.write(PASS_KEY, self.pass.as_ref().map(to_json).as_deref());
        Kept::OnDevice.write(SESSION_KEY, self.session.as_deref());
    }

    /// The signed-in user.
    pub fn user(&self) -> Option<&str> {
        self.pass.as_ref().map(|pass| pass.user.as_str())
    }

    /// Whether there are any credentials.
    pub fn is_known(&self) -> bool {
        self.pass.is_some() || self.session.is_some()
    }

    /// Returns the subprotocols of a socket, in which a browser can send secrets outside of the address, which is logged;
    /// none without credentials.
    pub fn subprotocols(&self) -> Vec<String> {
        let token = self.pass.as_ref().map(|pass| format!("bearer.{}", pass.token));
        let session = self.session.as_ref().map(|session| format!("session.{session}"));
        let own = self.is_known().then(|| "carillon".to_owned());
        own.into_iter().chain(token).chain(session).collect()
    }

    /// Returns the headers of a request.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let token = self.pass.as_ref().map(|pass| ("authorization", format!("Bearer {}", pass.token)));
        let session = self.session.clone().map(|session| ("carillon-session", session));
        token.into_iter().chain(session).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_to_the_server_by_subprotocols_and_headers() {
        let pass =
            SignedIn { token: "t".into(), user: "anna".into(), expires_at: "2026-11-21T07:45:00Z".into() };
        assert_eq!(SignedIn::read(&Fields::read(&to_json(&pass)).unwrap()), Some(pass.clone()));
        let mut access = Access::default();
        assert_eq!((access.is_known(), access.subprotocols()), (false, vec![]));
        access.session = Some("s".into());
        assert_eq!(
            (access.is_known(), access.subprotocols()),
            (true, vec!["carillon".into(), "session.s".into()])
        );
        access.pass = Some(pass);
        assert_eq!(access.subprotocols(), ["carillon", "bearer.t", "session.s"]);
        assert_eq!(
            access.headers(),
            [("authorization", "Bearer t".to_owned()), ("carillon-session", "s".to_owned())]
        );
    }
}
