use std::time::Duration;

use carillon_protocol::CloseCode;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The deadline of a frame: the longest silence of a server is its heartbeat.
const FRAME_DEADLINE: Duration = Duration::from_secs(40);

/// How a WebSocket is opened.
#[derive(Clone, Debug, Default)]
pub struct DialOptions {
    /// Headers beside those of the handshake.
    pub headers: Vec<(String, String)>,
    /// The size of the receive buffer, so that a reader that stops reading is noticed soon. The kernel would otherwise grow
    /// it to megabytes.
    pub receive_buffer_bytes: Option<u32>,
}

/// Why a WebSocket was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The server answered with this HTTP status and body.
    Status(u16, String),
    /// There was no response, for this reason.
    Unreachable(String),
}

/// One frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Vec<u8>),
    /// A ping; it is answered automatically when the next frame is read.
    Ping,
    /// A pong.
    Pong,
    /// The end, with the code of a close frame, or `None` when the connection was lost.
    Closed(Option<CloseCode>),
}

/// A plain WebSocket, for tests that need exact frames. [`crate::Reader`] is the one that resumes.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
}

impl Socket {
    /// Opens a WebSocket, for example `ws://127.0.0.1:8081/ws?since=…`.
    ///
    /// # Errors
    /// When the server refuses or does not answer.
    ///
    /// # Panics
    /// When the URL or a header cannot be written, or the server does not answer.
    pub async fn open(url: &str, options: &DialOptions) -> Result<Self, Refused> {
        let mut request = url.into_client_request().unwrap_or_else(|error| panic!("the URL {url}: {error}"));
        for (name, value) in &options.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("the name of a header");
            let value = HeaderValue::from_str(value).expect("the value of a header");
            request.headers_mut().insert(name, value);
        }
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let tcp = dial(&authority, options)
            .await
            .map_err(|error| Refused::Unreachable(format!("{authority}: {error}")))?;
        let answer = timeout(FRAME_DEADLINE, tokio_tungstenite::client_async(request, tcp)).await;
        match answer.unwrap_or_else(|_| panic!("no answer to the handshake within {FRAME_DEADLINE:?}")) {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                Err(Refused::Status(answer.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
            }
            Err(error) => Err(Refused::Unreachable(error.to_string())),
        }
    }

    /// Receives the next frame. This is cancel-safe.
    pub async fn frame(&mut self) -> Frame {
        match self.stream.next().await {
            Some(Ok(Message::Text(text))) => Frame::Text(text.to_string()),
            Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes.to_vec()),
            Some(Ok(Message::Ping(_))) => Frame::Ping,
            Some(Ok(Message::Pong(_))) => Frame::Pong,
            Some(Ok(Message::Close(close))) => {
                // Sends our close frame.
                let _ = self.stream.flush().await;
                Frame::Closed(close.map(|close| CloseCode(close.code.into())))
            }
            Some(Ok(Message::Frame(_)) | Err(_)) | None => Frame::Closed(None),
        }
    }

    /// Receives the next text frame, and skips pings and pongs.
    ///
    /// # Panics
    /// When another frame arrives, or none.
    pub async fn text(&mut self) -> String {
        match self.next_frame().await {
            Frame::Text(text) => text,
            other => panic!("a text frame was expected, and {other:?} came"),
        }
    }

    /// Reads to the end, and returns the text frames and the code of the close frame.
    ///
    /// # Panics
    /// When the server does not close.
    pub async fn until_closed(&mut self) -> (Vec<String>, Option<CloseCode>) {
        let mut texts = Vec::new();
        loop {
            match self.next_frame().await {
                Frame::Text(text) => texts.push(text),
                Frame::Closed(code) => return (texts, code),
                _ => {}
            }
        }
    }

    /// Sends a text frame. A lost server is noticed by reading.
    pub async fn send(&mut self, text: &str) {
        let _ = self.stream.send(Message::text(text)).await;
    }

    /// Sends a binary frame.
    pub async fn send_binary(&mut self, bytes: &[u8]) {
        let _ = self.stream.send(Message::binary(bytes.to_vec())).await;
    }

    /// Sends a ping.
    pub async fn ping(&mut self) {
        let _ = self.stream.send(Message::Ping(Vec::new().into())).await;
    }

    /// Closes as a browser does, with a close frame.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }

    /// Drops the connection without a close frame: the server gets a reset.
    pub fn cut(self) {
        let _ = self.stream.get_ref().set_zero_linger();
    }

    async fn next_frame(&mut self) -> Frame {
        loop {
            match timeout(FRAME_DEADLINE, self.frame()).await {
                Ok(Frame::Ping | Frame::Pong) => {}
                Ok(frame) => return frame,
                Err(_) => panic!("no frame within {FRAME_DEADLINE:?}"),
            }
        }
    }
}

async fn dial(authority: &str, options: &DialOptions) -> std::io::Result<TcpStream> {
    let mut addresses = lookup_host(authority).await?;
    let address = addresses.next().ok_or(std::io::ErrorKind::NotFound)?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(bytes) = options.receive_buffer_bytes {
        // Only a size that is set before connecting limits the window.
        socket.set_recv_buffer_size(bytes)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
