use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, InvalidHeaderValue, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, Request};
use carillon_service::outbound::{Answer, Outbound, Unanswered};
use http_body_util::Full;
use rustls::ClientConfig;
use url::Url;

/// How long a server may take to respond; then the request is repeated.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum bytes of a response.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Posts JSON documents.
pub(crate) struct Http {
    client: Outbound,
    authorization: Option<HeaderValue>,
}

impl Http {
    pub(crate) fn new(trust: ClientConfig, api_key: Option<&str>) -> Result<Self, InvalidHeaderValue> {
        let authorization = api_key.map(|key| format!("Bearer {key}").try_into()).transpose()?;
        Ok(Self { client: Outbound::with_tls(trust), authorization })
    }

    pub(crate) async fn post(&self, url: &Url, json: &str) -> Result<Answer, Unanswered> {
        let mut request = Request::new(Full::from(json.to_owned()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.as_str().parse().expect("an address that was read is one for HTTP");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.authorization.clone().map(|key| (AUTHORIZATION, key)));
        self.client.fetch(request, ANSWER_TIMEOUT, ANSWER_MAX_BYTES).await
    }
}

/// Returns the `Retry-After`, in milliseconds.
pub(crate) fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(seconds.saturating_mul(1_000))
}
