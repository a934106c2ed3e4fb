//! Who makes a request over HTTP that needs a right: an application with a key, a user, or neither.

use axum::http::StatusCode;
use axum::http::request::Parts;
use carillon_auth::identity::bearer;
use carillon_auth::token::{Identity, header};

use crate::gate::Gate;
use crate::gate::keys::{ApiKey, Scope};
use crate::gate::local::is_local;
use crate::gate::publishing::Open;
use crate::limits::clients::Publisher;
use crate::metrics;
use crate::refusal::Refusal;

/// Who makes a request.
pub(crate) enum Principal {
    /// An application with a key, or any client where no key is needed.
    Application(Application),
    /// A signed-in user.
    User(Identity),
    /// An anonymous request.
    Anonymous,
}

/// An application with the right that it asked for.
#[derive(Clone, Copy)]
pub(crate) struct Application {
    /// The index of its key; `None` where no key is needed.
    key: Option<usize>,
}

/// An action that needs a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// To publish to any audience.
    Publish,
    /// To set a user's state.
    SetState,
    /// To read the data of a user: states, messages, presence.
    Read,
    /// To revoke tokens and sessions.
    Revoke,
}

impl Right {
    /// The scope that a key needs for it.
    fn scope(self) -> Scope {
        match self {
            Self::Publish | Self::SetState => Scope::Publish,
            Self::Read => Scope::Read,
            Self::Revoke => Scope::Revoke,
        }
    }
}

impl Gate {
    /// Identifies who makes a request that needs this right, unless it concerns the user's own data. A bad token is refused,
    /// and so is a token that a page of another origin sends.
    pub(crate) async fn principal(&self, parts: &Parts, right: Right) -> Result<Principal, Refusal> {
        if let Some(application) = self.keyed(parts, right)? {
            return Ok(Principal::Application(application));
        }
        match self.identities.token_of(parts) {
            Some(token) if self.identities.tokens.is_configured() => {
                self.allow_origin(parts)?;
                self.identity(token, self.limits.network(parts)).await.map(Principal::User)
            }
            _ if self.is_open(parts, right) => Ok(Principal::Application(Application { key: None })),
            _ => Ok(Principal::Anonymous),
        }
    }

    /// Identifies the application that makes a request, and checks its right.
    pub(crate) fn application(&self, parts: &Parts, right: Right) -> Result<Application, Refusal> {
        match self.keyed(parts, right)? {
            Some(application) => Ok(application),
            None if self.is_open(parts, right) => Ok(Application { key: None }),
            None => Err(self.key_required(right)),
        }
    }

    /// Returns the application whose key a request carries. A wrong key is counted. An address with too many of them is
    /// refused even with a good key, so that a client cannot find out which key is good.
    pub(crate) fn keyed(&self, parts: &Parts, right: Right) -> Result<Option<Application>, Refusal> {
        match self.key_of(parts)? {
            Some((at, key)) => allowed(at, key, right).map(Some),
            None => self.wrong_key(parts).map(|()| None),
        }
    }

    /// Like [`Gate::keyed`], for a signed request: where the key is unknown, the signature counts.
    pub(crate) fn keyed_or_signed(&self, parts: &Parts) -> Result<Option<Application>, Refusal> {
        self.key_of(parts)?.map(|(at, key)| allowed(at, key, Right::Publish)).transpose()
    }

    /// Whether a client without a key has this right. Open publishing gives no access to the data of people: neither once
    /// users can sign in, nor to clients on other machines.
    fn is_open(&self, parts: &Parts, right: Right) -> bool {
        match self.publishing.open {
            Open::Nobody => false,
            Open::Anybody => right == Right::Publish,
            Open::ThisMachine => {
                let is_of_people = matches!(right, Right::Read | Right::Revoke);
                !(is_of_people && self.identities.tokens.is_configured()) && is_local(parts)
            }
        }
    }

    /// Returns the name of an application's key, for the log.
    pub(crate) fn name_of(&self, application: Application) -> Option<&str> {
        self.publishing.keys.name(application.key?)
    }

    /// Counts a publish of an application, with its bytes.
    pub(crate) fn count(&self, one: Application, parts: &Parts, bytes: usize) -> Result<(), Refusal> {
        let publisher = match one.key {
            Some(key) => Some(Publisher::Key(key)),
            None => self.limits.network(parts).map(Publisher::Network),
        };
        publisher.map_or(Ok(()), |publisher| self.limits.count_publish(&publisher, bytes))
    }

    /// Returns the bearer text of a request where keys are configured, unless it looks like a token and users can sign in.
    fn bearer_key<'a>(&self, parts: &'a Parts) -> Option<&'a str> {
        let is_token = |text: &str| self.identities.tokens.is_configured() && header(text).is_some();
        bearer(&parts.headers).filter(|text| !self.publishing.keys.is_empty() && !is_token(text))
    }

    fn key_of(&self, parts: &Parts) -> Result<Option<(usize, &ApiKey)>, Refusal> {
        let Some(given) = self.bearer_key(parts) else { return Ok(None) };
        // Clients without a known address may include all the applications, so they are not refused for the guesses of
        // others.
        if self.limits.has_own_network(parts) {
            self.limits.check_guesses(parts)?;
        }
        Ok(self.publishing.keys.find(given))
    }

    /// An unknown key beside a signature: it counts as a guess, unless the signature is valid.
    pub(crate) fn guess<'a>(&'a self, parts: &'a Parts) -> Guess<'a> {
        Guess { gate: self, parts, is_withdrawn: false }
    }

    /// Counts the key of a request that is unknown, where there is one.
    fn wrong_key(&self, parts: &Parts) -> Result<(), Refusal> {
        if self.bearer_key(parts).is_none() {
            return Ok(());
        }
        metrics::key_refused("unknown");
        self.limits.count_guess(parts)
    }

    /// Returns the 401 of a request without the needed key.
    pub(crate) fn key_required(&self, right: Right) -> Refusal {
        let title = match right {
            Right::Publish => "publishing requires a key",
            _ => "API key required",
        };
        let detail = match (self.publishing.keys.is_empty(), self.publishing.open, right) {
            (false, ..) => SEND_A_KEY,
            (true, Open::ThisMachine, _) => {
                "without an API_KEY only this machine has access: http://localhost, 127.0.0.1 or [::1], without a proxy"
            }
            (true, _, Right::Publish) => {
                "the service has no API_KEY: start it with one; to publish, WEBHOOK_SECRET with a signature or ALLOW_PUBLISH=1 is enough"
            }
            (true, ..) => "the service has no API_KEY: start it with one",
        };
        Refusal::new(StatusCode::UNAUTHORIZED, title, detail)
    }
}

/// An unknown key beside a signature. It is counted as wrong however the request ends, even when the client does not wait
/// for the end.
pub(crate) struct Guess<'a> {
    gate: &'a Gate,
    parts: &'a Parts,
    is_withdrawn: bool,
}

impl Guess<'_> {
    /// Records that the signature is valid, so the key was not needed.
    pub(crate) fn withdraw(mut self) {
        self.is_withdrawn = true;
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        if !self.is_withdrawn {
            // The request is refused in any case, for its signature.
            let _ = self.gate.wrong_key(self.parts);
        }
    }
}

/// Returns the application of a key, if the key has the scope.
fn allowed(at: usize, key: &ApiKey, right: Right) -> Result<Application, Refusal> {
    let scope = right.scope();
    if key.may(scope) {
        tracing::debug!(key = key.name, ?right, "an application makes a request");
        return Ok(Application { key: Some(at) });
    }
    metrics::key_refused("scope");
    tracing::warn!(key = key.name, ?right, "a key lacks the scope of a request");
    let (needed, has) = (scope.into_str(), key.scopes());
    let detail =
        format!("the key has {has}, and this needs {needed}: use another key, or add {needed} in API_KEY");
    Err(Refusal::new(StatusCode::FORBIDDEN, "insufficient scope", detail))
}

const SEND_A_KEY: &str = "send Authorization: Bearer and one of the keys in API_KEY";

/// The 401 of an anonymous request for a user's data.
pub(crate) fn authentication_required() -> Refusal {
    let detail =
        "send a token of a user who may read this, or one of the keys in API_KEY, as Authorization: Bearer";
    Refusal::new(StatusCode::UNAUTHORIZED, "authentication required", detail)
}
