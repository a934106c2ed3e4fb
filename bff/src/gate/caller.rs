use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::request::Parts;
use carillon_auth::seal::{KeyId, SealError, Session, SessionId};
use carillon_auth::token::{Identity, TopicPattern};
use carillon_broker::BrokerError;
use carillon_protocol::limits::TOPICS_MAX;
use carillon_protocol::{Audience, Cursor, FieldError, is_topic};
use carillon_service::filled;
use ipnet::IpNet;

use crate::delivery::feed::Reader;
use crate::delivery::hub::Credential;
use crate::gate::Gate;
use crate::metrics::{self, Limit};
use crate::refusal::Refusal;
use crate::request::{queries, query, secret};

/// What asks for a new session, in place of a token.
const NEW_SESSION: &str = "new";
/// In front of a token in the subprotocols of a WebSocket.
pub(crate) const BEARER: &str = "bearer.";
/// In front of a session in the subprotocols of a WebSocket.
pub(crate) const SESSION: &str = "session.";

/// Who somebody is and what they may read: the one place that turns a request into audiences.
pub(crate) struct Caller {
    /// The signed-in user.
    pub(crate) identity: Option<Identity>,
    /// The browser session, and its token as it is to be named from now on.
    pub(crate) session: Option<OpenSession>,
    /// The topics that the request names, all of them permitted.
    topics: BTreeSet<String>,
    /// What the client is counted by.
    pub(crate) network: Option<IpNet>,
}

/// A session that somebody has opened.
pub(crate) struct OpenSession {
    pub(crate) session: Session,
    /// Its token, as it is to be named from now on.
    pub(crate) token: String,
    /// The key that has sealed it.
    key: KeyId,
}

impl OpenSession {
    fn named(&self) -> (SessionId, KeyId) {
        (self.session.id, self.key.clone())
    }
}

impl Caller {
    /// Everyone may read what is for everyone; the rest takes proof.
    pub(crate) fn audiences(&self) -> Arc<[Audience]> {
        let own = self.own_user().into_iter().chain(self.own_session());
        let topics = self.topics.iter().cloned().map(Audience::Topic);
        [Audience::Everyone].into_iter().chain(own).chain(topics).collect()
    }

    /// The signed-in user, as an audience.
    pub(crate) fn own_user(&self) -> Option<Audience> {
        self.identity.as_ref().map(|identity| Audience::User(identity.user.clone()))
    }

    /// The session, as an audience.
    pub(crate) fn own_session(&self) -> Option<Audience> {
        self.session.as_ref().map(|open| Audience::Session(open.session.id.to_string()))
    }

    /// A reader of all that the caller may and wants to read.
    pub(crate) fn reader(&self, since: Option<Cursor>) -> Reader {
        reader_of(self.audiences(), since, self.network)
    }

    /// A signed-in user without anything else.
    pub(crate) fn user_alone(identity: Identity, network: Option<IpNet>) -> Self {
        Self { identity: Some(identity), session: None, topics: BTreeSet::new(), network }
    }

    /// What it can be shut out by.
    pub(crate) fn credential(&self) -> Credential {
        let session = self.session.as_ref().map(OpenSession::named);
        Credential { session, ..self.identity.as_ref().map(credential).unwrap_or_default() }
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| identity.user.as_str())
    }
}

/// A reader of these audiences.
pub(crate) fn reader_of(audiences: Arc<[Audience]>, since: Option<Cursor>, network: Option<IpNet>) -> Reader {
    // 62 random bits from the operating system: a connection's id is not to be guessed.
    let id = uuid::Uuid::new_v4().as_u64_pair().1;
    Reader { id, audiences, since, network }
}

/// What a client names to be known by, and what it wants to read.
pub(crate) struct Credentials {
    pub(crate) token: Option<String>,
    /// A sealed session, or `new`.
    pub(crate) session: Option<String>,
    pub(crate) topics: BTreeSet<String>,
}

impl Credentials {
    /// Those of a request. A WebSocket of a browser can name a token without a URL that is logged in its subprotocols.
    pub(crate) fn of(gate: &Gate, parts: &Parts) -> Self {
        let subprotocol = |prefix| secret(parts, prefix).map(str::to_owned);
        Self {
            token: subprotocol(BEARER).or_else(|| gate.identities.token_of(parts).map(str::to_owned)),
            session: subprotocol(SESSION).or_else(|| session_of(parts)),
            topics: queries(parts, "topic").collect(),
        }
    }
}

/// What a token was good for, as readers are shut out by.
fn credential(identity: &Identity) -> Credential {
    Credential {
        user: Some(identity.user.clone()),
        token_id: identity.token_id.clone(),
        issued_at_s: identity.issued_at_s,
        session: None,
    }
}

impl Gate {
    /// Who makes this request. A page of a foreign origin, a bad token or session, or a topic that is not
    /// permitted is refused, never ignored: somebody who meant to sign in is not to read as nobody.
    pub(crate) async fn caller(&self, parts: &Parts) -> Result<Caller, Refusal> {
        self.allow_origin(parts)?;
        self.identify(parts, Credentials::of(self, parts)).await
    }

    /// Who makes a request by these credentials, from a page that may connect.
    pub(crate) async fn identify(&self, parts: &Parts, credentials: Credentials) -> Result<Caller, Refusal> {
        let Credentials { token, session, topics } = credentials;
        let network = self.limits.network(parts);
        let identity = match token {
            Some(token) => Some(self.identity(&token, network).await?),
            None => None,
        };
        let session = match session {
            Some(text) => Some(self.session(&text).await?),
            None => None,
        };
        self.check_topics(&topics, identity.as_ref())?;
        Ok(Caller { identity, session, topics, network })
    }

    /// Browsers name the page that makes a request, and send cookies along whichever page that is.
    pub(crate) fn allow_origin(&self, parts: &Parts) -> Result<(), Refusal> {
        self.identities
            .origins
            .allow(&parts.headers)
            .map_err(|error| Refusal::new(StatusCode::FORBIDDEN, "origin not allowed", error.to_string()))
    }

    /// Whom a token from this address speaks for, now.
    pub(crate) async fn identity(&self, token: &str, from: Option<IpNet>) -> Result<Identity, Refusal> {
        let now_ms = (self.clock)();
        let identity = self.identities.tokens.verify(token, now_ms, from).await.map_err(|error| {
            metrics::token_refused(error.reason());
            if error.is_temporary() {
                let title = "token verification unavailable";
                return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, title, error.to_string());
            }
            Refusal::token(error.to_string())
        })?;
        match self.revocations.refuse(&credential(&identity)) {
            Some(false) => Ok(identity),
            Some(true) => Err(Refusal::token("the token was revoked: sign in again")),
            // Redis was not reached yet: whether the token was revoked is not known.
            None => Err(not_read_yet()),
        }
    }

    /// Opens a session, renews its token where that is old, or begins a new one.
    pub(crate) async fn session(&self, text: &str) -> Result<OpenSession, Refusal> {
        let now_ms = (self.clock)();
        let sealer = self.sealing.sealer().await?;
        let sealed = |session: Session| {
            let token = sealer.seal(&session).map_err(no_random)?;
            Ok(OpenSession { session, token, key: sealer.key().clone() })
        };
        if text == NEW_SESSION {
            return sealed(Session::new(now_ms).map_err(no_random)?);
        }
        let (session, key) = sealer.open_by(text, now_ms).map_err(|error: SealError| {
            Refusal::new(StatusCode::UNAUTHORIZED, "invalid session", error.to_string())
        })?;
        let open = OpenSession { session, token: text.to_owned(), key: key.clone() };
        let credential = Credential { session: Some(open.named()), ..Credential::default() };
        match self.revocations.refuse(&credential) {
            Some(false) => open.session.renewed(now_ms).map_or(Ok(open), sealed),
            Some(true) => Err(Refusal::new(StatusCode::UNAUTHORIZED, "invalid session", REVOKED)),
            None => Err(not_read_yet()),
        }
    }

    fn check_topics(&self, topics: &BTreeSet<String>, identity: Option<&Identity>) -> Result<(), Refusal> {
        if topics.len() > TOPICS_MAX {
            metrics::limit_reached(Limit::Topics);
            let detail = format!("{} topics", topics.len());
            let fault = FieldError { limit: Some(TOPICS_MAX as u64), ..FieldError::new("topic", detail) };
            return Err(Refusal::fields("too many topics", vec![fault]));
        }
        if topics.iter().all(|topic| self.may_read(identity, topic)) {
            return Ok(());
        }
        Err(Refusal::new(StatusCode::FORBIDDEN, "topic not allowed", TOPIC_REFUSED))
    }

    /// Whether a topic is open to anybody, or to this user.
    pub(crate) fn may_read(&self, identity: Option<&Identity>, topic: &str) -> bool {
        let public = |topics: &[TopicPattern]| topics.iter().any(|pattern| pattern.matches(topic));
        is_topic(topic)
            && (public(&self.identities.public_topics) || identity.is_some_and(|one| one.may_read(topic)))
    }
}

const REVOKED: &str = "the session was called back: ask for a new one with session=new";

fn not_read_yet() -> Refusal {
    BrokerError::Away("the revocations are not read yet".to_owned()).into()
}

/// Why a topic may not be read.
pub(crate) const TOPIC_REFUSED: &str =
    "a topic is read by those whose token names it in `topics`, and by all where PUBLIC_TOPICS has it";

pub(crate) fn no_random(error: carillon_auth::seal::RandomError) -> Refusal {
    tracing::error!(%error, "the operating system gives no random bytes");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error", "the cause is in the log")
}

/// The session that a request names, and not by an empty text, in a header or, as browsers must, in the query.
pub(crate) fn session_of(parts: &Parts) -> Option<String> {
    let header = parts.headers.get("carillon-session").and_then(|value| value.to_str().ok()).and_then(filled);
    header.map(str::to_owned).or_else(|| query(parts, "session"))
}

/// The cursor that a reader names.
pub(crate) fn since(parts: &Parts) -> Option<Cursor> {
    // A browser's EventSource repeats its first URL and names its last event in a header, which is newer.
    let last_event = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let last_event = last_event.and_then(filled).map(str::to_owned);
    last_event.or_else(|| query(parts, "since")).map(|text| cursor(&text))
}

/// A cursor that a client names. One that cannot be read stands for all that there is: a refusal would come again with each
/// try of a client that keeps it.
pub(crate) fn cursor(text: &str) -> Cursor {
    text.parse().unwrap_or_else(|_| Cursor::unreadable())
}
