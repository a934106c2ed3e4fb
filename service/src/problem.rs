use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use carillon_protocol::Problem;

/// A [`Problem`] as a response that no cache stores.
#[derive(Debug)]
pub struct ProblemResponse(pub Problem);

impl ProblemResponse {
    /// Creates a problem without fields.
    pub fn new(status: StatusCode, title: &str, detail: impl Into<String>) -> Self {
        let (status, title) = (status.as_u16(), title.to_owned());
        Self(Problem { status, title, detail: detail.into(), errors: Vec::new() })
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}
