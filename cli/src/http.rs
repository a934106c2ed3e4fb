use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, InvalidHeaderValue, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tokio::time::timeout;
use url::Url;

/// How long a server may take to respond; then the request is repeated.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum bytes of a response.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Posts JSON documents.
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    authorization: Option<HeaderValue>,
}

/// A response of a server.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The `Retry-After`, in milliseconds.
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) body: Bytes,
}

/// Why there is no response.
pub(crate) enum Unanswered {
    /// There was no connection, so no request was sent.
    Unconnected(String),
    /// The connection was lost: the request may have been carried out.
    Lost(String),
}

impl Http {
    pub(crate) fn new(trust: ClientConfig, api_key: Option<&str>) -> Result<Self, InvalidHeaderValue> {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(trust).https_or_http().enable_http1().build();
        let authorization = api_key.map(|key| format!("Bearer {key}").try_into()).transpose()?;
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), authorization })
    }

    pub(crate) async fn post(&self, url: &Url, json: &str) -> Result<Answer, Unanswered> {
        let mut request = Request::new(Full::from(json.to_owned()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.as_str().parse().expect("an address that was read is one for HTTP");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.authorization.clone().map(|key| (AUTHORIZATION, key)));
        match timeout(ANSWER_TIMEOUT, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Unanswered::Lost(format!("not within {} s", ANSWER_TIMEOUT.as_secs()))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Unanswered> {
        let response = self.client.request(request).await.map_err(|error| {
            let cause = innermost(&error);
            if error.is_connect() { Unanswered::Unconnected(cause) } else { Unanswered::Lost(cause) }
        })?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| Unanswered::Lost(error.to_string()))?.to_bytes();
        Ok(Answer { status: parts.status, retry_after_ms: retry_after_ms(&parts.headers), body })
    }
}

/// Returns the cause behind all other errors, which only report that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(seconds.saturating_mul(1_000))
}
