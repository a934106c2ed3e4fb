use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use tower_http::services::ServeDir;

/// Serves the built viewer from a folder, precompressed where the browser accepts it. A file under `/assets/` has a hash of
/// its content in its name and never changes; the browser revalidates all others.
///
/// # Errors
/// When the folder has no viewer.
pub fn viewer(folder: &Path) -> anyhow::Result<Router> {
    if !folder.join("index.html").is_file() {
        anyhow::bail!("no viewer in {}: build it with `cargo xtask viewer`", folder.display());
    }
    let files = ServeDir::new(folder).precompressed_br().precompressed_gzip();
    Ok(Router::new().fallback_service(files).layer(middleware::from_fn(headers)))
}

async fn headers(request: Request, next: Next) -> Response {
    let immutable = request.uri().path().starts_with("/assets/");
    let mut response = next.run(request).await;
    let lasting = if immutable && response.status().is_success() {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(lasting));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// The same policy is in frontend/Caddyfile.
const POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
