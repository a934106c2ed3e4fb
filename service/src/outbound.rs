//! HTTP requests to other servers: to key sets, and to the application.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
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

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Outbound {
    /// Trusts the authorities of this machine, or of the file in `SSL_CERT_FILE`; without any, as in a small container,
    /// those that browsers trust.
    pub fn with_default_roots() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self::trusting(roots)
    }

    fn trusting(roots: RootCertStore) -> Self {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring speaks what is safe")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Self(client)
    }

    /// Sends a request and reads the whole response, which must arrive within `deadline` and have at most `max_bytes`.
    ///
    /// # Errors
    /// The message is for the log: it may name hosts.
    pub async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Duration,
        max_bytes: usize,
    ) -> Result<Answer, String> {
        let exchange = async {
            let response = self.0.request(request).await.map_err(|error| innermost(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, max_bytes).collect().await.map_err(|error| error.to_string())?;
            Ok(Answer { status: parts.status, body: body.to_bytes() })
        };
        match timeout(deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no complete response within {} ms", deadline.as_millis())),
        }
    }

    /// Sends a request and returns the status and headers of the response, which must arrive within `deadline`. The body is
    /// ignored; if it is short, the connection is used again.
    ///
    /// # Errors
    /// The message is for the log: it may name hosts.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Duration,
    ) -> Result<(StatusCode, HeaderMap), String> {
        let response = match timeout(deadline, self.0.request(request)).await {
            Ok(response) => response.map_err(|error| innermost(&error))?,
            Err(_) => return Err(format!("no response within {} ms", deadline.as_millis())),
        };
        let (parts, body) = response.into_parts();
        let rest = Limited::new(body, REST_MAX_BYTES).collect();
        let _ = timeout(REST_TIMEOUT, rest).await;
        Ok((parts.status, parts.headers))
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
    use std::path::Path;

    use carillon_harness::{Process, eventually, free_port, need};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Creates an authority, and a certificate of a server that it has signed.
    fn certificates(folder: &Path) {
        need("openssl", "openssl");
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1";
        for args in [
            format!("{new} -keyout ca.key -out ca.crt -subj /CN=authority"),
            format!(
                "{new} -keyout server.key -out server.crt -subj /CN=localhost -CA ca.crt -CAkey ca.key \
                 -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
            ),
        ] {
            let mut openssl = std::process::Command::new("openssl");
            let output = openssl.args(args.split_whitespace()).current_dir(folder).output().unwrap();
            assert!(output.status.success(), "openssl {args}");
        }
    }

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
        let trusting = Outbound::trusting(roots);
        let get = async |client: &Outbound, host: &str| {
            let request = Request::get(format!("https://{host}:{port}/")).body(Full::default()).unwrap();
            client.ask(request, DEADLINE, 64 * 1024).await
        };
        let answers =
            async || get(&trusting, "localhost").await.is_ok_and(|answer| answer.status == StatusCode::OK);
        eventually("an answer of one who is vouched for", DEADLINE, answers).await;
        for (client, host) in [(&Outbound::with_default_roots(), "localhost"), (&trusting, "127.0.0.1")] {
            let error = get(client, host).await.unwrap_err();
            assert!(error.contains("certificate"), "{error}");
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
