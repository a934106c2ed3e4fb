//! Who the page is to the server: nobody, a browser's session, a signed-in user.

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
    /// Whose it is.
    pub user: String,
    /// Until when, RFC 3339.
    pub expires_at: String,
}

impl Pass {
    /// Reads one; `None` when something is missing.
    #[must_use]
    pub fn read(fields: &Fields) -> Option<Self> {
        let text = |name| fields.text(name);
        Some(Self { token: text("token")?, user: text("user")?, expires_at: text("expires_at")? })
    }

    fn to_json(&self) -> String {
        let Self { token, user, expires_at } = self;
        object(&[("token", Some(token)), ("user", Some(user)), ("expires_at", Some(expires_at))])
    }

    /// Milliseconds since 1970 at which it ends; one that does not say has ended.
    #[must_use]
    pub fn ends_ms(&self) -> u64 {
        parse_timestamp(&self.expires_at).unwrap_or_default()
    }
}

/// What the page shows the server with everything that it asks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Of the signed-in user: for this tab, so that two tabs may be two people.
    pub pass: Option<Pass>,
    /// Of the browser: for all its tabs, once it has started a job.
    pub session: Option<String>,
}

impl Access {
    /// What the browser has kept.
    #[must_use]
    pub fn kept() -> Self {
        let pass = Kept::InTab.read(PASS_KEY).and_then(|json| Pass::read(&Fields::read(&json)?));
        Self { pass, session: Kept::OnDevice.read(SESSION_KEY) }
    }

    /// Keeps it for the next time that the page is loaded.
    pub fn keep(&self) {
        Kept::InTab.write(PASS_KEY, self.pass.as_ref().map(Pass::to_json).as_deref());
        Kept::OnDevice.write(SESSION_KEY, self.session.as_deref());
    }

    /// The signed-in user.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.pass.as_ref().map(|pass| pass.user.as_str())
    }

    /// Whether the server knows more of the page than its cursor.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.pass.is_some() || self.session.is_some()
    }

    /// As subprotocols of a socket, which a browser can name beside an address that is logged; none where the server
    /// knows nothing of the page.
    #[must_use]
    pub fn subprotocols(&self) -> Vec<String> {
        let token = self.pass.as_ref().map(|pass| format!("bearer.{}", pass.token));
        let session = self.session.as_ref().map(|session| format!("session.{session}"));
        let own = self.is_known().then(|| "carillon".to_owned());
        own.into_iter().chain(token).chain(session).collect()
    }

    /// As headers.
    #[must_use]
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
