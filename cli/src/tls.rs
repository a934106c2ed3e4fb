use carillon_service::outbound::{roots_of_this_machine, tls};
use rustls::{ClientConfig, RootCertStore};

use crate::address::Address;

/// Returns how servers are verified: with the certificates that this machine trusts, or those of SSL_CERT_FILE. An address
/// without TLS needs none, so none are read: a small container has none.
pub(crate) fn trust(address: &Address) -> anyhow::Result<ClientConfig> {
    if !address.is_tls() {
        return Ok(tls(RootCertStore::empty()));
    }
    let roots = roots_of_this_machine();
    if roots.is_empty() {
        anyhow::bail!(
            "this machine has no certificates to verify {address}: install ca-certificates or name a file of them in SSL_CERT_FILE"
        );
    }
    Ok(tls(roots))
}
