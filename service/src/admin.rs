use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::Readiness;

/// The text format of Prometheus.
const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// Returns the routes of the admin port, separate from the port of readers: `GET /live` (200 while the process answers),
/// `GET /ready` (200, or 503 with the missing conditions) and `GET /metrics`.
pub fn admin(
    readiness: Readiness,
    render_metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Router {
    Router::new()
        .route("/live", get(async || "ok\n"))
        .route("/ready", get(async move || ready(&readiness)))
        .route(
            "/metrics",
            get(async move || ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], render_metrics())),
        )
}

fn ready(readiness: &Readiness) -> impl IntoResponse + use<> {
    let missing = readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
    }
}
