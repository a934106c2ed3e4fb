//! Who asks over HTTP for what is not for everybody: an application with a key, a user, or anybody.

use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::config::Publishing;
use crate::limits::Publisher;
use crate::reply::Refusal;
use crate::token::Identity;

/// Who makes a request.
pub(crate) enum Asker {
    /// An application with a key, which may know and do everything.
    Key,
    /// A signed-in user.
    User(Identity),
    /// Whoever says nothing of who it is.
    Anybody,
}

impl App {
    /// Who makes a request. A token that is not good, and one that a foreign page sends, is refused.
    pub(crate) async fn asker(&self, parts: &Parts) -> Result<Asker, Refusal> {
        if self.is_trusted(parts) {
            return Ok(Asker::Key);
        }
        match self.identities.token_of(parts) {
            Some(token) if self.identities.tokens.is_configured() => {
                self.allow_origin(parts)?;
                self.identity(token).await.map(Asker::User)
            }
            _ => Ok(Asker::Anybody),
        }
    }

    /// Refuses all but applications with a key.
    pub(crate) fn needs_key(&self, parts: &Parts) -> Result<(), Refusal> {
        if self.is_trusted(parts) { Ok(()) } else { Err(no_key(&self.publishing)) }
    }

    /// Whether a request counts as one with a key. That anybody may publish is no key where people sign in: it
    /// would open what is theirs.
    fn is_trusted(&self, parts: &Parts) -> bool {
        let is_open = matches!(self.publishing, Publishing::Open) && !self.identities.tokens.is_configured();
        is_open || self.has_key(parts)
    }

    /// Whether a request has one of the keys.
    pub(crate) fn has_key(&self, parts: &Parts) -> bool {
        matches!(authorize(&self.publishing, parts), Ok(Some(_)))
    }

    /// Who publishes: a user, or, without one, an application that may say anything to anybody.
    pub(crate) async fn publisher(&self, parts: &Parts) -> Result<Option<Identity>, Refusal> {
        match self.asker(parts).await? {
            Asker::User(identity) => Ok(Some(identity)),
            Asker::Key | Asker::Anybody => self.may_publish(parts).map(|()| None),
        }
    }

    /// Refuses applications without a key, where one is needed to say anything to anybody.
    pub(crate) fn may_publish(&self, parts: &Parts) -> Result<(), Refusal> {
        authorize(&self.publishing, parts).map(|_| ())
    }

    /// The same, and counts what is said, with its bytes.
    pub(crate) fn application(&self, parts: &Parts, bytes: usize) -> Result<(), Refusal> {
        let key = authorize(&self.publishing, parts)?.map(Publisher::Key);
        let publisher = key.or_else(|| self.limits.network(parts).map(Publisher::Network));
        publisher.map_or(Ok(()), |publisher| self.limits.publish(&publisher, bytes))
    }
}

/// The place of a request's key among the keys; `None` where none is needed to publish.
fn authorize(publishing: &Publishing, parts: &Parts) -> Result<Option<usize>, Refusal> {
    let keys = match publishing {
        Publishing::Open => return Ok(None),
        Publishing::Keys(keys) => keys,
    };
    let value =
        parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = value
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    // Every key is compared, and in constant time: how long it takes tells nothing about them.
    let found = keys.iter().enumerate().fold(None, |found, (at, key)| {
        let is_it = given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(key.as_bytes())));
        if is_it { Some(at) } else { found }
    });
    if found.is_some() {
        return Ok(found);
    }
    let detail = if keys.is_empty() {
        "no API_KEY is set here: start with one; to publish, a signature by WEBHOOK_SECRET or ALLOW_PUBLISH=1 will do"
    } else {
        SEND_A_KEY
    };
    Err(Refusal::new(StatusCode::UNAUTHORIZED, "publishing is not open to you", detail))
}

const SEND_A_KEY: &str = "send Authorization: Bearer and one of the keys in API_KEY";

fn no_key(publishing: &Publishing) -> Refusal {
    let detail = match publishing {
        Publishing::Keys(keys) if !keys.is_empty() => SEND_A_KEY,
        _ => "no API_KEY is set here: start with one",
    };
    Refusal::new(StatusCode::UNAUTHORIZED, "this takes a key", detail)
}

/// A 401 for anybody who asks for what is a user's.
pub(crate) fn who_asks() -> Refusal {
    let detail = "send the token of somebody whom this is for, or one of the keys in API_KEY, as Authorization: Bearer";
    Refusal::new(StatusCode::UNAUTHORIZED, "sign in first", detail)
}
