use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use carillon_broker::BrokerError;
use carillon_protocol::{FieldError, Problem};
use carillon_service::ProblemResponse;

use crate::metrics;

/// The `Retry-After` of a 503 that names no other, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

const INVALID_TOKEN: &str = "invalid token";

/// A refusal over HTTP: `application/problem+json`.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    title: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    retry_after_s: Option<u64>,
    /// Whether another replica can serve the request.
    elsewhere: bool,
}

/// Removes the cookie by which a front door routes a client to its replica.
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

    /// A 400 that names each invalid field.
    pub(crate) fn fields(title: &'static str, errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, title, "") }
    }

    /// A 401 for an invalid token.
    pub(crate) fn token(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID_TOKEN, detail)
    }

    /// Returns the problem in one line.
    pub(crate) fn to_line(&self) -> String {
        let errors: Vec<_> = self.errors.iter().map(ToString::to_string).collect();
        [self.title, &self.detail, &errors.join("; ")]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(": ")
    }

    /// A 503 that asks the client to retry after `retry_after_s`.
    pub(crate) fn unavailable(title: &'static str, detail: impl Into<String>, retry_after_s: u64) -> Self {
        let retry_after_s = Some(retry_after_s);
        Self { retry_after_s, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, title, detail) }
    }

    /// A 429 for a client that has reached a limit.
    pub(crate) fn too_many(title: &'static str, detail: impl Into<String>, retry_after_s: u64) -> Self {
        let retry_after_s = Some(retry_after_s);
        Self { retry_after_s, ..Self::new(StatusCode::TOO_MANY_REQUESTS, title, detail) }
    }

    /// A 503 of a replica that shuts down. It removes the client's cookie, with which a front door would route the client
    /// back to this replica.
    pub(crate) fn elsewhere(title: &'static str, detail: impl Into<String>) -> Self {
        Self { elsewhere: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, title, detail) }
    }

    /// Returns the `Retry-After`, if the refusal has one.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let away = (self.status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS);
        self.retry_after_s.or(away).map(Duration::from_secs)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Counts the refusal of a reader, and returns its response.
    pub(crate) fn into_response_counted(self) -> Response {
        metrics::reader_refused(self.status.as_u16());
        self.into_response()
    }
}

/// Marks responses as private: most are for one client alone, and a cache cannot know which. A rejection of the framework,
/// which has a text body, becomes a refusal like all others.
pub(crate) async fn private(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_text = kind.is_some_and(|kind| kind.starts_with(b"text/plain"));
    let mut response = match response.status() {
        status if is_text && (status.is_client_error() || status.is_server_error()) => {
            let title = status.canonical_reason().unwrap_or("refused");
            Refusal::new(status, title, "the request cannot be read: see /docs").into_response()
        }
        _ => response,
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl From<BrokerError> for Refusal {
    /// The error of Redis stays in the log, since it may name hosts.
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
            // RFC 6750, section 3: `error` distinguishes an invalid token from a missing one.
            let challenge = if title == INVALID_TOKEN { r#"Bearer error="invalid_token""# } else { "Bearer" };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
