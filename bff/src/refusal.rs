use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use carillon_broker::BrokerError;
use carillon_protocol::{FieldError, Problem};
use carillon_service::ProblemResponse;

use crate::metrics;

/// Seconds that a client is asked to wait while Redis is away or the list is full.
const RETRY_AFTER_SECONDS: u64 = 1;

const TOKEN_REFUSED: &str = "invalid token";

/// A refusal over HTTP: `application/problem+json`.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    title: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    retry_after_s: Option<u64>,
    /// Whether another replica would do it.
    elsewhere: bool,
}

/// The cookie by which a front door leads a client to the replica that it had.
const FORGET_REPLICA: &str = "REALTIMESERVERID=; Max-Age=0; Path=/";

impl Refusal {
    pub(crate) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after_s: None,
            elsewhere: false,
        }
    }

    /// A 400 that names each field that is wrong.
    pub(crate) fn fields(title: &'static str, errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, title, "") }
    }

    /// A 401 for a token that is not good.
    pub(crate) fn token(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, TOKEN_REFUSED, detail)
    }

    /// What is wrong, in one line.
    pub(crate) fn words(&self) -> String {
        let errors: Vec<_> = self.errors.iter().map(ToString::to_string).collect();
        [self.title, &self.detail, &errors.join("; ")]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(": ")
    }

    /// A 503 for what will be there again after so many seconds.
    pub(crate) fn unavailable(title: &'static str, detail: impl Into<String>, retry_after_s: u64) -> Self {
        let retry_after_s = Some(retry_after_s);
        Self { retry_after_s, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, title, detail) }
    }

    /// A 429 for a client that has had what it may have for now.
    pub(crate) fn too_many(title: &'static str, detail: impl Into<String>, retry_after_s: u64) -> Self {
        let retry_after_s = Some(retry_after_s);
        Self { retry_after_s, ..Self::new(StatusCode::TOO_MANY_REQUESTS, title, detail) }
    }

    /// A 503 of a replica that goes away. The client is to forget it: a front door that leads clients by a cookie would
    /// bring this one back here.
    pub(crate) fn elsewhere(title: &'static str, detail: impl Into<String>) -> Self {
        Self { elsewhere: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, title, detail) }
    }

    /// How long the client is asked to wait, where it is.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let away = (self.status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS);
        self.retry_after_s.or(away).map(Duration::from_secs)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer to a reader who is not let in, counted.
    pub(crate) fn turn_away(self) -> Response {
        metrics::reader_refused(self.status.as_u16());
        self.into_response()
    }
}

/// Marks answers that are for whoever asked alone: most are, and no cache can tell which. A rejection of the framework,
/// which is a text, becomes a refusal as others are.
pub(crate) async fn private(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_text = kind.is_some_and(|kind| kind.starts_with(b"text/plain"));
    let mut response = match response.status() {
        status if is_text && (status.is_client_error() || status.is_server_error()) => {
            let words = status.canonical_reason().unwrap_or("refused");
            Refusal::new(status, words, "the request cannot be read: see /docs").into_response()
        }
        _ => response,
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl From<BrokerError> for Refusal {
    /// What Redis said stays in the log: it may name hosts.
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Away(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "Redis unavailable",
                "try again shortly; nothing was accepted for certain",
            ),
            BrokerError::Refused(_) | BrokerError::Url(_) => {
                tracing::error!(%error, "Redis refused a request");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal error",
                    "the cause is in the log of the service",
                )
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after();
        let Self { status, title, detail, errors, elsewhere, .. } = self;
        let problem = Problem { status: status.as_u16(), title: title.to_owned(), detail, errors };
        let mut response = ProblemResponse(problem).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = retry_after {
            headers.insert(header::RETRY_AFTER, wait.as_secs().into());
        }
        if elsewhere {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(FORGET_REPLICA));
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 6750, section 3: a token that was sent and is not good is told apart from none.
            let challenge = if title == TOKEN_REFUSED { r#"Bearer error="invalid_token""# } else { "Bearer" };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
