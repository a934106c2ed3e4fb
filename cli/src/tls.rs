use carillon_service::outbound::{roots_of_this_machine, tls};
use rustls::{ClientConfig, RootCertStore};

use crate::address::Address;

/// How a server proves who it is: by the certificates that this machine trusts, or those of
/// SSL_CERT_FILE. Where the address needs none, none are looked for: a small container has none.
pub(crate) fn trust(address: &Address) -> anyhow::Result<ClientConfig> {
    if !address.is_tls() {
        return Ok(tls(RootCertStore::empty()));
    }
    let roots = roots_of_this_machine();
    if roots.is_empty() {
        anyhow::bail!(
            "this machine has no certificates to check {address} by: install ca-certificates or name a file of them in SSL_CERT_FILE"
        );
    }
    Ok(tls(roots))
}
