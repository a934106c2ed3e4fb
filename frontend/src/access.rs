//! The credentials that the page sends to the server: none, a browser's session, or a signed-in user's token.

use carillon_protocol::parse_timestamp;

use crate::fields::{Fields, object};
use crate::storage::Kept;

const PASS_KEY: &str = "carillon-pass";
const SESSION_KEY: &str = "carillon-session";

/// A signed-in user's token, as `POST /api/demo/token` gives it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pass {
    /// The token.
    pub token: String,
    /// The user.
    pub user: String,
    /// When it expires, RFC 3339.
    pub expires_at: String,
}

impl Pass {
    /// Reads a token; `None` when a field is missing.
    pub fn read(fields: &Fields) -> Option<Self> {
        let text = |name| fields.text(name);
        Some(Self { token: text("token")?, user: text("user")?, expires_at: text("expires_at")? })
    }

    fn to_json(&self) -> String {
        let Self { token, user, expires_at } = self;
        object(&[("token", Some(token)), ("user", Some(user)), ("expires_at", Some(expires_at))])
    }

    /// When it expires, in milliseconds since 1970; a token without a readable time has expired.
    pub fn ends_ms(&self) -> u64 {
        parse_timestamp(&self.expires_at).unwrap_or_default()
    }
}

/// The credentials that the page sends with every request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The signed-in user's token, for this tab alone, so that two tabs may have two users.
    pub pass: Option<Pass>,
    /// The browser's session, for all its tabs, once it has started a job.
    pub session: Option<String>,
}

impl Access {
    /// Returns the stored credentials.
    pub fn kept() -> Self {
        let pass = Kept::InTab.read(PASS_KEY).and_then(|json| Pass::read(&Fields::read(&json)?));
        Self { pass, session: Kept::OnDevice.read(SESSION_KEY) }
    }

    /// Stores the credentials for the next load of the page.
    pub fn keep(&self) {
        Kept::InTab.write(PASS_KEY, self.pass.as_ref().map(Pass::to_json).as_deref());
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
    fn is_sent_in_subprotocols_and_headers() {
        let pass = Pass { token: "t".into(), user: "anna".into(), expires_at: "2026-11-21T07:45:00Z".into() };
        assert_eq!(pass.ends_ms(), 1_795_247_100_000);
        assert!(Pass::read(&Fields::read(&pass.to_json()).unwrap()) == Some(pass.clone()));
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
