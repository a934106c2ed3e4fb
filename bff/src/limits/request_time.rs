//! How long a request may take, from its head to its answer.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::metrics::{self, Limit};
use crate::refusal::Refusal;

/// Gives up on a request whose body, or whose answer, takes too long.
pub(crate) async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            metrics::limit_reached(Limit::RequestTime);
            let detail = format!("a request is to be sent, and can be answered, within {limit:?}");
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "request timeout", detail).into_response()
        }
    }
}
