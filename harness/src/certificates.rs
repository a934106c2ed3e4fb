use std::path::Path;
use std::process::Command;

use crate::need;

/// Creates, in a folder, an authority (`ca.crt`, `ca.key`), and the certificate of a server on `localhost` that it has signed
/// (`server.crt`, `server.key`). Both are valid for a day.
///
/// # Panics
/// When `openssl` is not installed, or fails.
pub fn certificates(folder: &Path) {
    need("openssl", "openssl");
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1";
    for args in [
        format!("{new} -keyout ca.key -out ca.crt -subj /CN=authority"),
        format!(
            "{new} -keyout server.key -out server.crt -subj /CN=localhost -CA ca.crt -CAkey ca.key \
             -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
        ),
    ] {
        let openssl = Command::new("openssl").args(args.split_whitespace()).current_dir(folder).output();
        let output = openssl.expect("openssl starts");
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
