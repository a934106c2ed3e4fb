//! The API of this service, described for programs (`/openapi.json`, `/asyncapi.json`) and shown to people (`/docs`). The
//! tests of this folder generate the two documents from the types, and compare the committed ones with them.

#[cfg(test)]
mod asyncapi;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod operation;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, get_service};
use swagger_ui_dist::{ApiDefinition, OpenApiSource};

const OPENAPI: &str = include_str!("../../docs/openapi.json");
const ASYNCAPI: &str = include_str!("../../docs/asyncapi.json");
const PAGE: &str = include_str!("contract/page.html");
const START: &str = include_str!("contract/start.js");

const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];
const HTML: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
const SCRIPT: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/javascript")];

/// No other origin is allowed: the page works without a network. Its icons are `data:` images.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the routes of the documents, and of Swagger UI with a page of our own: the page of Swagger UI has an inline
/// script, which the policy forbids.
pub(crate) fn router() -> Router {
    let swagger = swagger_ui_dist::generate_routes(ApiDefinition {
        uri_prefix: "/docs",
        api_definition: OpenApiSource::Uri("/openapi.json"),
        title: None,
    });
    Router::new()
        .route("/openapi.json", get(async || (JSON, OPENAPI)))
        .route("/asyncapi.json", get(async || (JSON, ASYNCAPI)))
        .route("/docs", get(async || (HTML, PAGE)))
        .route("/docs/start.js", get(async || (SCRIPT, START)))
        .route("/docs/swagger-ui.css", get_service(swagger.clone()))
        .route("/docs/swagger-ui-bundle.js", get_service(swagger))
        .layer(middleware::from_fn(headers))
}

async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
