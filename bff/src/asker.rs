//! Who asks over HTTP for what is not for everybody: an application with a key, a user, or anybody.

use axum::http::StatusCode;
use axum::http::request::Parts;
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::config::Open;
use crate::identity::bearer;
use crate::limits::Publisher;
use crate::local::is_local;
use crate::reply::Refusal;
use crate::token::Identity;

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

impl App {
    /// Who makes a request, for which this right is needed unless it is the user's own affair. A token that is not good,
    /// and one that a foreign page sends, is refused.
    pub(crate) async fn asker(&self, parts: &Parts, right: Right) -> Result<Asker, Refusal> {
        if let Some(key) = self.key_of(parts) {
            return Ok(Asker::Application(Application { key: Some(key) }));
        }
        match self.identities.token_of(parts) {
            Some(token) if self.identities.tokens.is_configured() => {
                self.allow_origin(parts)?;
                self.identity(token).await.map(Asker::User)
            }
            _ if self.is_open(parts, right) => Ok(Asker::Application(Application { key: None })),
            _ => Ok(Asker::Anybody),
        }
    }

    /// The application that makes a request, where it has this right.
    pub(crate) fn application(&self, parts: &Parts, right: Right) -> Result<Application, Refusal> {
        match self.key_of(parts) {
            Some(key) => Ok(Application { key: Some(key) }),
            None if self.is_open(parts, right) => Ok(Application { key: None }),
            None => Err(self.no_key(right)),
        }
    }

    /// Whether a request has one of the keys.
    pub(crate) fn has_key(&self, parts: &Parts) -> bool {
        self.key_of(parts).is_some()
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

    /// Counts what an application says, with its bytes.
    pub(crate) fn count(&self, one: Application, parts: &Parts, bytes: usize) -> Result<(), Refusal> {
        let publisher = match one.key {
            Some(key) => Some(Publisher::Key(key)),
            None => self.limits.network(parts).map(Publisher::Network),
        };
        publisher.map_or(Ok(()), |publisher| self.limits.publish(&publisher, bytes))
    }

    /// The place of a request's key among the keys.
    fn key_of(&self, parts: &Parts) -> Option<usize> {
        let given = bearer(&parts.headers)?;
        // Every key is compared, and in constant time: how long it takes tells nothing about them.
        self.publishing.keys.iter().enumerate().fold(None, |found, (at, key)| {
            if bool::from(given.as_bytes().ct_eq(key.as_bytes())) { Some(at) } else { found }
        })
    }

    /// A 401 for who asks for this without a key.
    pub(crate) fn no_key(&self, right: Right) -> Refusal {
        let title = match right {
            Right::Publish => "publishing is not open to you",
            _ => "this takes a key",
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

const SEND_A_KEY: &str = "send Authorization: Bearer and one of the keys in API_KEY";

/// A 401 for anybody who asks for what is a user's.
pub(crate) fn who_asks() -> Refusal {
    let detail = "send the token of somebody whom this is for, or one of the keys in API_KEY, as Authorization: Bearer";
    Refusal::new(StatusCode::UNAUTHORIZED, "sign in first", detail)
}
