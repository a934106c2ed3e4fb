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

/// Requests a new session, in place of a session's token.
const NEW_SESSION: &str = "new";
/// The prefix of a token in the subprotocols of a WebSocket.
pub(crate) const BEARER: &str = "bearer.";
/// The prefix of a session in the subprotocols of a WebSocket.
pub(crate) const SESSION: &str = "session.";

/// A caller's identity and the audiences that it may read. This is the one place that maps a request to audiences.
pub(crate) struct Caller {
    /// The signed-in user.
    pub(crate) identity: Option<Identity>,
    /// The browser session, with the token that the client has to use from now on.
    pub(crate) session: Option<OpenSession>,
    /// The topics that the request names, all of them allowed.
    topics: BTreeSet<String>,
    /// The network that the client's limits count against.
    pub(crate) network: Option<IpNet>,
}

/// A session that a request has opened.
pub(crate) struct OpenSession {
    pub(crate) session: Session,
    /// The token that the client has to use from now on.
    pub(crate) token: String,
    /// The key that sealed the token.
    key: KeyId,
}

impl OpenSession {
    fn id_and_key(&self) -> (SessionId, KeyId) {
        (self.session.id, self.key.clone())
    }
}

impl Caller {
    /// Returns the audiences of the caller: `everyone`, and those that it has proved a right to.
    pub(crate) fn audiences(&self) -> Arc<[Audience]> {
        let own = self.own_user().into_iter().chain(self.own_session());
        let topics = self.topics.iter().cloned().map(Audience::Topic);
        [Audience::Everyone].into_iter().chain(own).chain(topics).collect()
    }

    /// Returns the signed-in user as an audience.
    pub(crate) fn own_user(&self) -> Option<Audience> {
        self.identity.as_ref().map(|identity| Audience::User(identity.user.clone()))
    }

    /// Returns the session as an audience.
    pub(crate) fn own_session(&self) -> Option<Audience> {
        self.session.as_ref().map(|open| Audience::Session(open.session.id.to_string()))
    }

    /// Returns a reader of the caller's audiences.
    pub(crate) fn reader(&self, since: Option<Cursor>) -> Reader {
        reader_of(self.audiences(), since, self.network)
    }

    /// Returns a caller with a user, and without a session or topics.
    pub(crate) fn user_alone(identity: Identity, network: Option<IpNet>) -> Self {
        Self { identity: Some(identity), session: None, topics: BTreeSet::new(), network }
    }

    /// Returns the credential by which the caller's readers can be closed.
    pub(crate) fn credential(&self) -> Credential {
        let session = self.session.as_ref().map(OpenSession::id_and_key);
        Credential { session, ..self.identity.as_ref().map(credential).unwrap_or_default() }
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| identity.user.as_str())
    }
}

/// Returns a reader of these audiences.
pub(crate) fn reader_of(audiences: Arc<[Audience]>, since: Option<Cursor>, network: Option<IpNet>) -> Reader {
    // 62 random bits from the operating system, so that no client can guess a connection's id.
    let id = uuid::Uuid::new_v4().as_u64_pair().1;
    Reader { id, audiences, since, network }
}

/// The credentials and topics that a client names.
pub(crate) struct Credentials {
    pub(crate) token: Option<String>,
    /// A sealed session, or `new`.
    pub(crate) session: Option<String>,
    pub(crate) topics: BTreeSet<String>,
}

impl Credentials {
    /// Reads them from a request. In a WebSocket, a browser can name a token in the subprotocols, so that it is not in a
    /// logged URL.
    pub(crate) fn of(gate: &Gate, parts: &Parts) -> Self {
        let subprotocol = |prefix| secret(parts, prefix).map(str::to_owned);
        Self {
            token: subprotocol(BEARER).or_else(|| gate.identities.token_of(parts).map(str::to_owned)),
            session: subprotocol(SESSION).or_else(|| session_of(parts)),
            topics: queries(parts, "topic").collect(),
        }
    }
}

/// Returns a user's credential, by which readers can be closed.
fn credential(identity: &Identity) -> Credential {
    Credential {
        user: Some(identity.user.clone()),
        token_id: identity.token_id.clone(),
        issued_at_s: identity.issued_at_s,
        session: None,
    }
}

impl Gate {
    /// Identifies who makes a request. A page of another origin, a bad token or session, or a topic that is not allowed is
    /// refused and never ignored: a client that meant to sign in must not read as an anonymous one.
    pub(crate) async fn caller(&self, parts: &Parts) -> Result<Caller, Refusal> {
        self.allow_origin(parts)?;
        self.identify(parts, Credentials::of(self, parts)).await
    }

    /// Identifies who makes a request with these credentials, once its origin is allowed.
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

    /// Refuses a request of a page of another origin: browsers name the page that makes a request, and send cookies for any
    /// page.
    pub(crate) fn allow_origin(&self, parts: &Parts) -> Result<(), Refusal> {
        self.identities
            .origins
            .allow(&parts.headers)
            .map_err(|error| Refusal::new(StatusCode::FORBIDDEN, "origin not allowed", error.to_string()))
    }

    /// Verifies a token that came from this address, and returns its user.
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
        match self.revocations.is_revoked(&credential(&identity)) {
            Some(false) => Ok(identity),
            Some(true) => Err(Refusal::token("the token was revoked: sign in again")),
            // Redis was not reached yet, so it is unknown whether the token was revoked.
            None => Err(revocations_unknown()),
        }
    }

    /// Opens a session, renews its token when that is old, or begins a new session.
    pub(crate) async fn session(&self, text: &str) -> Result<OpenSession, Refusal> {
        let now_ms = (self.clock)();
        let sealer = self.session_key.sealer().await?;
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
        let credential = Credential { session: Some(open.id_and_key()), ..Credential::default() };
        match self.revocations.is_revoked(&credential) {
            Some(false) => open.session.renewed(now_ms).map_or(Ok(open), sealed),
            Some(true) => Err(Refusal::new(StatusCode::UNAUTHORIZED, "invalid session", REVOKED)),
            None => Err(revocations_unknown()),
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

    /// Whether a topic is public, or allowed to this user.
    pub(crate) fn may_read(&self, identity: Option<&Identity>, topic: &str) -> bool {
        let public = |topics: &[TopicPattern]| topics.iter().any(|pattern| pattern.matches(topic));
        is_topic(topic)
            && (public(&self.identities.public_topics) || identity.is_some_and(|one| one.may_read(topic)))
    }
}

const REVOKED: &str = "the session was revoked: request a new one with session=new";

fn revocations_unknown() -> Refusal {
    BrokerError::Away("the revocations were not read yet".to_owned()).into()
}

/// The detail of a refusal of a topic.
pub(crate) const TOPIC_REFUSED: &str =
    "a topic may be read with a token that names it in `topics`, and without one if PUBLIC_TOPICS has it";

pub(crate) fn no_random(error: carillon_auth::seal::RandomError) -> Refusal {
    tracing::error!(%error, "the operating system returned no random bytes");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error", "the cause is in the log")
}

/// Returns the session that a request names in a header or, as browsers must, in the query.
pub(crate) fn session_of(parts: &Parts) -> Option<String> {
    let header = parts.headers.get("carillon-session").and_then(|value| value.to_str().ok()).and_then(filled);
    header.map(str::to_owned).or_else(|| query(parts, "session"))
}

/// Returns the cursor that a reader names.
pub(crate) fn since(parts: &Parts) -> Option<Cursor> {
    // A browser's EventSource repeats its first URL and adds the id of its last event in a header, which is newer.
    let last_event = parts.headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let last_event = last_event.and_then(filled).map(str::to_owned);
    last_event.or_else(|| query(parts, "since")).map(|text| cursor(&text))
}

/// Parses a cursor that a client names. An unreadable cursor stands for all of history: a client that keeps it would repeat
/// a refused request with each attempt.
pub(crate) fn cursor(text: &str) -> Cursor {
    text.parse().unwrap_or_else(|_| Cursor::unreadable())
}
