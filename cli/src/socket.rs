use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use carillon_client::{Dial, Frame, Opening};
use carillon_protocol::{CloseCode, Problem};
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use url::Url;

use crate::address::Address;
use crate::sticky;

/// Maximum bytes of a received frame: far more than a replica sends.
const FRAME_MAX_BYTES: usize = 1024 * 1024;
/// Maximum time to write a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time to write a frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// A WebSocket of a reader.
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The cookie that leads back to the same replica, if the front door set a new one.
    pub(crate) cookie: Option<HeaderValue>,
}

/// Why a socket was not opened.
#[derive(Debug)]
pub(crate) enum Refused {
    /// A reconnect would fail too.
    Final(String),
    /// A reconnect may succeed.
    Temporary(String),
}

/// Opens the sockets of a reader.
pub(crate) struct Dialer {
    pub(crate) url: Address,
    /// The reader's credentials, and the cookie that leads back to the replica of the last connection.
    pub(crate) headers: HeaderMap,
    pub(crate) trust: Arc<ClientConfig>,
}

impl Dial for Dialer {
    type Socket = Socket;
    type Refused = Refused;

    fn open(&mut self, since: Option<&str>, topics: &[String]) -> Opening<Socket, Refused> {
        let url = self.url.socket(since, topics);
        Box::pin(Socket::open(url, self.headers.clone(), Arc::clone(&self.trust)))
    }
}

impl Socket {
    async fn open(url: Url, headers: HeaderMap, trust: Arc<ClientConfig>) -> Result<Self, Refused> {
        let mut request =
            url.as_str().into_client_request().map_err(|error| Refused::Final(error.to_string()))?;
        request.headers_mut().extend(headers);
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_MAX_BYTES))
            .max_frame_size(Some(FRAME_MAX_BYTES));
        let connector = Some(Connector::Rustls(trust));
        match connect_async_tls_with_config(request, Some(config), true, connector).await {
            Ok((stream, answer)) => Ok(Self { stream, cookie: sticky::cookie_of(answer.headers()) }),
            Err(tungstenite::Error::Http(answer)) => {
                Err(refused(answer.status(), answer.body().as_deref().unwrap_or_default()))
            }
            Err(error) => Err(Refused::Temporary(error.to_string())),
        }
    }
}

impl carillon_client::Socket for Socket {
    async fn frame(&mut self) -> Frame {
        match self.stream.next().await {
            Some(Ok(Message::Text(text))) => Frame::Text(text.to_string()),
            Some(Ok(Message::Close(close))) => {
                // Sends our close frame, which is queued.
                let _ = timeout(CLOSE_TIMEOUT, self.stream.flush()).await;
                let (code, reason) = close.map(|close| (u16::from(close.code), close.reason)).unzip();
                Frame::Closed { code: code.map(CloseCode), reason: reason.unwrap_or_default().to_string() }
            }
            Some(Ok(_)) => Frame::Other,
            Some(Err(error)) => Frame::Closed { code: None, reason: error.to_string() },
            None => Frame::Closed { code: None, reason: String::new() },
        }
    }

    async fn send(&mut self, text: &str) {
        let _ = timeout(SEND_TIMEOUT, self.stream.send(Message::text(text))).await;
    }

    async fn close(mut self) {
        let _ = timeout(CLOSE_TIMEOUT, self.stream.close(None)).await;
    }
}

/// Classifies a response that is not an upgrade. A refusal of this request is final; a server that is busy or shuts down, or
/// a proxy before one that has ended, may accept the next attempt.
fn refused(status: tungstenite::http::StatusCode, body: &[u8]) -> Refused {
    let words = match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.to_string(),
        Err(_) => format!("it answers {status}"),
    };
    let is_final = status.is_client_error() && !matches!(status.as_u16(), 408 | 429);
    if is_final { Refused::Final(words) } else { Refused::Temporary(words) }
}

#[cfg(test)]
mod tests {
    use tungstenite::http::StatusCode;

    use super::*;

    #[test]
    fn a_refusal_of_this_request_is_final_and_shows_why() {
        let body =
            br#"{"status":400,"title":"invalid cursor","errors":[{"field":"since","detail":"no cursor"}]}"#;
        match refused(StatusCode::BAD_REQUEST, body) {
            Refused::Final(words) => assert_eq!(words, "invalid cursor; since: no cursor"),
            passing @ Refused::Temporary(_) => panic!("{passing:?}"),
        }
        for status in [401, 403, 404, 426] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(matches!(refused(status, b""), Refused::Final(_)), "{status}");
        }
        for status in [301, 408, 429, 500, 502, 503, 504] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(matches!(refused(status, b"<html>"), Refused::Temporary(_)), "{status}");
        }
    }
}
