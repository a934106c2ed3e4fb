//! The answer to a connection that there is no place for: a silent one would look like a lost network.

use std::sync::Arc;
use std::time::Duration;

use carillon_protocol::Problem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::places::NoPlace;

/// Connections that are told why they are closed, at the same time. More are closed without a word.
const TOLD_MAX: usize = 64;
/// How long one of them may take to read it.
const TOLD_TIMEOUT: Duration = Duration::from_secs(1);
/// Seconds after which a client is asked to come back.
const RETRY_SECONDS: u64 = 5;

/// Those that are being told.
#[derive(Clone, Debug)]
pub(super) struct Told(Arc<Semaphore>);

impl Told {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(TOLD_MAX)))
    }

    /// What tells the peer, where there is room for that, and closes the connection.
    pub(super) fn tell(
        &self,
        mut stream: TcpStream,
        why: NoPlace,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let place = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(async move {
            let telling = async {
                stream.write_all(answer(why).as_bytes()).await?;
                stream.shutdown().await?;
                // To close what has unread bytes is a reset, which may overtake the answer.
                let mut unread = [0; 1_024];
                while stream.read(&mut unread).await? > 0 {}
                Ok::<_, std::io::Error>(())
            };
            let _ = timeout(TOLD_TIMEOUT, telling).await;
            drop(place);
        })
    }
}

fn answer(why: NoPlace) -> String {
    let (status, reason, title, detail) = match why {
        NoPlace::Full => (
            503,
            "Service Unavailable",
            "replica full",
            "it has no place for another connection: try again shortly, or another replica",
        ),
        NoPlace::Address => (
            429,
            "Too Many Requests",
            "too many connections from this address",
            "close some first, or ask over those that are open",
        ),
    };
    let problem = Problem { status, title: title.to_owned(), detail: detail.to_owned(), errors: Vec::new() };
    let body = serde_json::to_string(&problem).unwrap_or_default();
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\nretry-after: {RETRY_SECONDS}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
