use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

use crate::address::Address;

/// Returns how servers are verified: with the certificates that this machine trusts, or those of SSL_CERT_FILE. An address
/// without TLS needs none, so none are read: a small container has none.
pub(crate) fn trust(address: &Address) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    if address.is_tls() {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            anyhow::bail!(
                "this machine has no certificates to verify {address}: install ca-certificates or name a file of them in SSL_CERT_FILE"
            );
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
