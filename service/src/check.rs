use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{Request, StatusCode};
use http_body_util::Full;

use crate::outbound::Outbound;

/// The timeout of a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum bytes of a response.
const ANSWER_MAX_BYTES: usize = 4 * 1024;

/// Queries the admin port at `admin` whether the process is ready, for the health check of a container without curl. An
/// unspecified address, like 0.0.0.0, is queried on loopback.
///
/// # Errors
/// When there is no response within 2 seconds, or the process is not ready; the error names the missing conditions.
pub async fn check(admin: SocketAddr) -> anyhow::Result<()> {
    let admin = reachable(admin);
    let request = Request::get(format!("http://{admin}/ready")).body(Full::default())?;
    let answer = Outbound::without_roots()
        .fetch(request, CHECK_TIMEOUT, ANSWER_MAX_BYTES)
        .await
        .with_context(|| format!("cannot query {admin} whether it is ready"))?;
    match answer.status {
        StatusCode::OK => Ok(()),
        StatusCode::SERVICE_UNAVAILABLE => bail!("{}", String::from_utf8_lossy(&answer.body).trim()),
        status => bail!("{admin} is not an admin port: it answered {status}"),
    }
}

fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    addr
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::{Readiness, Tasks, admin, bind};

    async fn serve(router: axum::Router) -> (SocketAddr, Tasks) {
        let listener = bind("probes", "0.0.0.0:0".parse().unwrap(), "--admin-listen").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let tasks = Tasks::default();
        tasks.spawn("admin", async move { Ok(axum::serve(listener, router).await?) });
        (addr, tasks)
    }

    async fn get(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(reachable(addr)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn names_the_missing_conditions_until_none_is_left() {
        let readiness = Readiness::default();
        let (redis, hub) = (readiness.latch("redis"), readiness.latch("hub"));
        let (addr, _tasks) = serve(admin(readiness.clone(), || "carillon_up 1\n".to_owned())).await;
        assert_eq!(check(addr).await.unwrap_err().to_string(), "not ready: redis, hub");
        redis.set(true);
        hub.set(true);
        check(addr).await.unwrap();
        readiness.drain();
        assert_eq!(check(addr).await.unwrap_err().to_string(), "not ready: draining");

        assert!(get(addr, "/live").await.starts_with("HTTP/1.1 200 "), "alive while it drains");
        let metrics = get(addr, "/metrics").await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4\r\n"), "{metrics}");
        assert!(metrics.ends_with("\r\n\r\ncarillon_up 1\n"), "{metrics}");
        assert!(get(addr, "/ready").await.starts_with("HTTP/1.1 503 "));
    }

    #[tokio::test]
    async fn a_closed_port_or_another_server_is_named() {
        let (addr, _tasks) = serve(axum::Router::new()).await;
        let error = check(addr).await.unwrap_err().to_string();
        assert!(error.ends_with("is not an admin port: it answered 404 Not Found"), "{error}");

        let shut = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = format!("{:#}", check(shut).await.unwrap_err());
        assert!(error.starts_with(&format!("cannot query {shut} whether it is ready: ")), "{error}");
    }

    #[tokio::test]
    async fn a_port_that_never_answers_is_given_up() {
        // The kernel accepts the connection; nothing reads from it.
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = mute.local_addr().unwrap();
        tokio::time::pause();
        let error = format!("{:#}", check(addr).await.unwrap_err());
        assert_eq!(
            error,
            format!("cannot query {addr} whether it is ready: no complete response within 2000 ms")
        );
    }
}
