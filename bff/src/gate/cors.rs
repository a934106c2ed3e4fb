//! Cross-origin requests over HTTP: pages that may connect may also `fetch`.

use std::time::Duration;

use axum::http::{HeaderName, Method, header};
use carillon_auth::origin::{Origin, Origins};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may cache the answer to a preflight request.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Returns the layer that answers preflight requests. An allowed origin is named, never `*`, which browsers refuse for pages
/// that send cookies. Without a list of origins there is no layer.
pub(crate) fn cors(origins: &Origins) -> Option<CorsLayer> {
    let allowed = match origins {
        Origins::Same => return None,
        // Cookies do not sign users in here: see `Identities::new`.
        Origins::Any => CorsLayer::new().allow_origin(AllowOrigin::mirror_request()),
        Origins::Listed(list) => {
            let list = list.clone();
            let is_listed = move |origin: &str| origin.parse::<Origin>().is_ok_and(|one| list.contains(&one));
            let allowed = AllowOrigin::predicate(move |origin, _| origin.to_str().is_ok_and(&is_listed));
            CorsLayer::new().allow_origin(allowed).allow_credentials(true)
        }
    };
    let headers = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_TYPE,
        HeaderName::from_static("carillon-session"),
        HeaderName::from_static("last-event-id"),
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("x-requested-with"),
    ];
    let methods = [Method::GET, Method::POST, Method::PUT];
    let exposed = [header::LOCATION, header::RETRY_AFTER];
    Some(
        allowed
            .allow_headers(headers)
            .allow_methods(methods)
            .expose_headers(exposed)
            .max_age(PREFLIGHT_MAX_AGE),
    )
}
