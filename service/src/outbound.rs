//! HTTP requests to other servers: to key sets, and to the application.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::time::timeout;

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum idle connections to one host.
const IDLE_MAX: usize = 2;

/// Maximum bytes of an ignored body that are read.
const REST_MAX_BYTES: usize = 16 * 1024;
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// A client for HTTP and HTTPS. It follows no redirect and uses no proxy, so it only reaches the given host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no response. The text is for the log: it may name hosts.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unanswered {
    /// There was no connection, so nothing was sent.
    #[error("{0}")]
    Unconnected(String),
    /// The request may have been received.
    #[error("{0}")]
    Lost(String),
}

/// The authorities that this machine trusts, or those of the file in `SSL_CERT_FILE`. A small container has none.
pub fn roots_of_this_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// TLS that accepts the servers for which these authorities vouch.
pub fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Outbound {
    /// Trusts the authorities of this machine, or of the file in `SSL_CERT_FILE`; without any, as in a small container,
    /// those that browsers trust.
    pub fn with_default_roots() -> Self {
        let mut roots = roots_of_this_machine();
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self::with_tls(tls(roots))
    }

    /// Trusts nobody, which is enough for `http://`.
    pub fn without_roots() -> Self {
        Self::with_tls(tls(RootCertStore::empty()))
    }

    /// Checks servers as this says.
    pub fn with_tls(tls: ClientConfig) -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Self(client)
    }

    /// Sends a request and reads the whole response, which must come within `deadline` and have at most `max_bytes`.
    ///
    /// # Errors
    /// When it does not, or there is no connection.
    pub async fn fetch(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Duration,
        max_bytes: usize,
    ) -> Result<Answer, Unanswered> {
        let exchange = async {
            let (parts, body) = self.response(request).await?.into_parts();
            let body = Limited::new(body, max_bytes).collect().await;
            let body = body.map_err(|error| Unanswered::Lost(error.to_string()))?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        timeout(deadline, exchange).await.unwrap_or_else(|_| {
            Err(Unanswered::Lost(format!("no complete response within {} ms", deadline.as_millis())))
        })
    }

    /// Sends a request and returns the status and headers of the response, which must come within `deadline`. The body is
    /// dropped; if it is short, the connection is used again.
    ///
    /// # Errors
    /// When there is no response in time, or no connection.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Duration,
    ) -> Result<(StatusCode, HeaderMap), Unanswered> {
        let response = timeout(deadline, self.response(request)).await.unwrap_or_else(|_| {
            Err(Unanswered::Lost(format!("no response within {} ms", deadline.as_millis())))
        })?;
        let (parts, body) = response.into_parts();
        let rest = Limited::new(body, REST_MAX_BYTES).collect();
        let _ = timeout(REST_TIMEOUT, rest).await;
        Ok((parts.status, parts.headers))
    }

    async fn response(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unanswered> {
        self.0.request(request).await.map_err(|error| {
            let cause = innermost(&error);
            if error.is_connect() { Unanswered::Unconnected(cause) } else { Unanswered::Lost(cause) }
        })
    }
}

/// Parses the URL of a server.
///
/// # Errors
/// The message shows how to write a URL.
pub fn address(text: &str) -> Result<Uri, String> {
    let unclear = || "write a URL that begins with http:// or https:// and names a host".to_owned();
    let uri: Uri = text.parse().map_err(|_| unclear())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    match uri.authority() {
        Some(authority) if is_http && authority.as_str().contains('@') => {
            Err("a name and a password in the URL are not sent: remove them".to_owned())
        }
        Some(_) if is_http => Ok(uri),
        _ => Err(unclear()),
    }
}

/// Returns the cause behind all other errors, which only report that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

#[cfg(test)]
mod tests {

    use carillon_harness::{Process, certificates, eventually, free_port};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_server_without_a_trusted_certificate_gets_no_request() {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        certificates(folder.path());
        let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let (certificate, key, accept) = (file("server.crt"), file("server.key"), port.to_string());
        let args = ["s_server", "-www", "-quiet", "-cert", &certificate, "-key", &key, "-accept", &accept];
        let _server = Process::spawn("openssl", &args, &[]);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.crt")).unwrap()).unwrap();
        let trusting = Outbound::with_tls(tls(roots));
        let get = async |client: &Outbound, host: &str| {
            let request = Request::get(format!("https://{host}:{port}/")).body(Full::default()).unwrap();
            client.fetch(request, DEADLINE, 64 * 1024).await
        };
        let answers =
            async || get(&trusting, "localhost").await.is_ok_and(|answer| answer.status == StatusCode::OK);
        eventually("an answer of one who is vouched for", DEADLINE, answers).await;
        for (client, host) in [(&Outbound::with_default_roots(), "localhost"), (&trusting, "127.0.0.1")] {
            let error = get(client, host).await.unwrap_err();
            assert!(error.to_string().contains("certificate"), "{error}");
        }
    }

    #[test]
    fn an_address_names_a_host() {
        for good in ["http://a", "https://a.example:8443/keys?x=1", "HTTPS://A"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for wrong in ["", "/keys", "a.example/keys", "ftp://a/", "http://", "http:///keys", "https://u:p@a/"]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
