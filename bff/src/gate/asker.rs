//! Who asks over HTTP for what is not for everybody: an application with a key, a user, or anybody.

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
pub(crate) enum Asker {
    /// An application with a key, or anybody where that is as good.
    Application(Application),
    /// A signed-in user.
    User(Identity),
    /// Whoever says nothing of who it is.
    Anybody,
}

/// An application that may do what it asks for.
#[derive(Clone, Copy)]
pub(crate) struct Application {
    /// The place of its key among the keys; `None` where no key is needed.
    key: Option<usize>,
}

/// What is not for everybody to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// To say anything to anybody.
    Publish,
    /// To keep a state for a user.
    SetState,
    /// To read what is somebody's: states, messages, presence.
    Read,
    /// To call tokens back.
    Revoke,
}

impl Right {
    /// What a key needs for it.
    fn scope(self) -> Scope {
        match self {
            Self::Publish | Self::SetState => Scope::Publish,
            Self::Read => Scope::Read,
            Self::Revoke => Scope::Revoke,
        }
    }
}

impl Gate {
    /// Who makes a request, for which this right is needed unless it is the user's own affair. A token that is not good,
    /// and one that a foreign page sends, is refused.
    pub(crate) async fn asker(&self, parts: &Parts, right: Right) -> Result<Asker, Refusal> {
        if let Some(application) = self.keyed(parts, right)? {
            return Ok(Asker::Application(application));
        }
        match self.identities.token_of(parts) {
            Some(token) if self.identities.tokens.is_configured() => {
                self.allow_origin(parts)?;
                self.identity(token, self.limits.network(parts)).await.map(Asker::User)
            }
            _ if self.is_open(parts, right) => Ok(Asker::Application(Application { key: None })),
            _ => Ok(Asker::Anybody),
        }
    }

    /// The application that makes a request, where it has this right.
    pub(crate) fn application(&self, parts: &Parts, right: Right) -> Result<Application, Refusal> {
        match self.keyed(parts, right)? {
            Some(application) => Ok(application),
            None if self.is_open(parts, right) => Ok(Application { key: None }),
            None => Err(self.no_key(right)),
        }
    }

    /// The application whose key a request has. A wrong key is counted; whoever has sent too many of them is refused,
    /// also with a good one, so that nobody learns which one that is.
    pub(crate) fn keyed(&self, parts: &Parts, right: Right) -> Result<Option<Application>, Refusal> {
        match self.key_of(parts)? {
            Some((at, key)) => allowed(at, key, right).map(Some),
            None => self.wrong_key(parts).map(|()| None),
        }
    }

    /// The same of a request that is signed too, whose signature counts where the key does not.
    pub(crate) fn keyed_or_signed(&self, parts: &Parts) -> Result<Option<Application>, Refusal> {
        self.key_of(parts)?.map(|(at, key)| allowed(at, key, Right::Publish)).transpose()
    }

    /// Whether anybody has this right. That anybody may publish opens nothing of people: neither where they sign in, nor
    /// to whoever is not on this machine.
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

    /// What the key of an application is called, for the log.
    pub(crate) fn name_of(&self, application: Application) -> Option<&str> {
        self.publishing.keys.name(application.key?)
    }

    /// Counts what an application says, with its bytes.
    pub(crate) fn count(&self, one: Application, parts: &Parts, bytes: usize) -> Result<(), Refusal> {
        let publisher = match one.key {
            Some(key) => Some(Publisher::Key(key)),
            None => self.limits.network(parts).map(Publisher::Network),
        };
        publisher.map_or(Ok(()), |publisher| self.limits.publish(&publisher, bytes))
    }

    /// What a request sends as a key, where there are any. What looks like a token is one, where people sign in.
    fn sent_as_key<'a>(&self, parts: &'a Parts) -> Option<&'a str> {
        let is_token = |text: &str| self.identities.tokens.is_configured() && header(text).is_some();
        bearer(&parts.headers).filter(|text| !self.publishing.keys.is_empty() && !is_token(text))
    }

    fn key_of(&self, parts: &Parts) -> Result<Option<(usize, &ApiKey)>, Refusal> {
        let Some(given) = self.sent_as_key(parts) else { return Ok(None) };
        // Those whose address is not known may be all the applications that there are.
        if self.limits.is_told_apart(parts) {
            self.limits.may_guess(parts)?;
        }
        Ok(self.publishing.keys.find(given))
    }

    /// What came as a key beside a signature and is none of ours: a guess, until the signature is good.
    pub(crate) fn guess<'a>(&'a self, parts: &'a Parts) -> Guess<'a> {
        Guess { gate: self, parts, is_withdrawn: false }
    }

    /// Counts the key of a request that is none of ours, where there is one.
    fn wrong_key(&self, parts: &Parts) -> Result<(), Refusal> {
        if self.sent_as_key(parts).is_none() {
            return Ok(());
        }
        metrics::key_refused("unknown");
        self.limits.guess(parts)
    }

    /// A 401 for who asks for this without a key.
    pub(crate) fn no_key(&self, right: Right) -> Refusal {
        let title = match right {
            Right::Publish => "publishing requires a key",
            _ => "API key required",
        };
        let detail = match (self.publishing.keys.is_empty(), self.publishing.open, right) {
            (false, ..) => SEND_A_KEY,
            (true, Open::ThisMachine, _) => {
                "without an API_KEY this is open to this machine alone: to http://localhost, 127.0.0.1 or [::1], and through no proxy"
            }
            (true, _, Right::Publish) => {
                "no API_KEY is set here: start with one; to publish, a signature by WEBHOOK_SECRET or ALLOW_PUBLISH=1 will do"
            }
            (true, ..) => "no API_KEY is set here: start with one",
        };
        Refusal::new(StatusCode::UNAUTHORIZED, title, detail)
    }
}

/// A key beside a signature. It is counted as wrong however its request ends, also where nobody waits for its body any more.
pub(crate) struct Guess<'a> {
    gate: &'a Gate,
    parts: &'a Parts,
    is_withdrawn: bool,
}

impl Guess<'_> {
    /// The signature is good, and the key was not needed.
    pub(crate) fn withdraw(mut self) {
        self.is_withdrawn = true;
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        if !self.is_withdrawn {
            // The request is refused in any case, for what is wrong with its signature.
            let _ = self.gate.wrong_key(self.parts);
        }
    }
}

/// A key that may do this.
fn allowed(at: usize, key: &ApiKey, right: Right) -> Result<Application, Refusal> {
    let scope = right.scope();
    if key.may(scope) {
        tracing::debug!(key = key.name, ?right, "an application asks");
        return Ok(Application { key: Some(at) });
    }
    metrics::key_refused("scope");
    tracing::warn!(key = key.name, ?right, "a key may not do what was asked");
    let (needed, has) = (scope.as_str(), key.scopes());
    let detail =
        format!("it may {has}, and this takes {needed}: use another key, or give it {needed} in API_KEY");
    Err(Refusal::new(StatusCode::FORBIDDEN, "insufficient scope", detail))
}

const SEND_A_KEY: &str = "send Authorization: Bearer and one of the keys in API_KEY";

/// A 401 for anybody who asks for what is a user's.
pub(crate) fn who_asks() -> Refusal {
    let detail = "send the token of somebody whom this is for, or one of the keys in API_KEY, as Authorization: Bearer";
    Refusal::new(StatusCode::UNAUTHORIZED, "authentication required", detail)
}
