//! The response to a refused connection: a silent close would look like a lost network.

use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::Problem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connections::Refused;

/// Maximum refused connections that get a response at the same time. Others are closed without one.
const RESPONSES_MAX: usize = 64;
/// How long a peer may take to read it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The `Retry-After` of the response, in seconds.
const RETRY_SECONDS: u64 = 5;

/// The responses that are being sent.
#[derive(Clone, Debug)]
pub(super) struct Responder(Arc<Semaphore>);

impl Responder {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(RESPONSES_MAX)))
    }

    /// Returns the task that sends the response and closes the connection, if there is room for one more.
    pub(super) fn respond(
        &self,
        mut stream: TcpStream,
        why: Refused,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(async move {
            let responding = async {
                stream.write_all(answer(why).as_bytes()).await?;
                stream.shutdown().await?;
                // Closing a connection with unread bytes sends a reset, which may overtake the response.
                let mut unread = [0; 1_024];
                while stream.read(&mut unread).await? > 0 {}
                Ok::<_, std::io::Error>(())
            };
            let _ = timeout(RESPONSE_TIMEOUT, responding).await;
            drop(permit);
        })
    }
}

fn answer(why: Refused) -> String {
    let (status, reason, title, detail) = match why {
        Refused::Full => (
            503,
            "Service Unavailable",
            "replica full",
            "it has no room for another connection: try again shortly, or another replica",
        ),
        Refused::Address => (
            429,
            "Too Many Requests",
            "too many connections from this address",
            "close some first, or reuse open ones",
        ),
    };
    let problem = Problem { status, title: title.to_owned(), detail: detail.to_owned(), errors: Vec::new() };
    let body = serde_json::to_string(&problem).unwrap_or_default();
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\nretry-after: {RETRY_SECONDS}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
