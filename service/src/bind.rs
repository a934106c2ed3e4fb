use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Listens on `addr` for `what` ("readers", "probes"); `option` is the option that chose the address,
/// like `--listen`, whose environment variable is its name in capitals.
///
/// # Errors
/// One readable line with the remedy, for example "cannot listen on 127.0.0.1:8081 for readers: the port is taken (choose
/// another with --listen or LISTEN)".
pub async fn bind(what: &str, addr: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| {
        let cause = match error.kind() {
            ErrorKind::AddrInUse => "the port is taken".to_owned(),
            ErrorKind::PermissionDenied => "this user may not use that port".to_owned(),
            ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        let variable = option.trim_start_matches('-').replace('-', "_").to_uppercase();
        anyhow::anyhow!(
            "cannot listen on {addr} for {what}: {cause} (choose another with {option} or {variable})"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_one_readable_line() {
        let taken = bind("probes", "127.0.0.1:0".parse().unwrap(), "--admin-listen").await.unwrap();
        let addr = taken.local_addr().unwrap();
        let error = bind("probes", addr, "--admin-listen").await.unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!(
                "cannot listen on {addr} for probes: the port is taken (choose another with --admin-listen or ADMIN_LISTEN)"
            )
        );
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named_as_such() {
        let error = bind("readers", "192.0.2.1:0".parse().unwrap(), "--listen").await.unwrap_err();
        assert!(error.to_string().contains("this machine has no such address"), "{error}");
    }
}
