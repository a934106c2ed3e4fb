use std::pin::Pin;

use carillon_protocol::CloseCode;

/// A socket that is being opened.
pub type Opening<S, R> = Pin<Box<dyn Future<Output = Result<S, R>> + Send>>;

/// Opens sockets.
pub trait Dial {
    /// The sockets that it opens.
    type Socket: Socket;
    /// Why it could not open a socket.
    type Refused;

    /// Starts to open a socket that resumes after the cursor `since` and subscribes to these topics.
    fn open(&mut self, since: Option<&str>, topics: &[String]) -> Opening<Self::Socket, Self::Refused>;
}

/// A connection to a server.
pub trait Socket: Send {
    /// Receives the next frame. It must be cancel-safe.
    fn frame(&mut self) -> impl Future<Output = Frame> + Send;

    /// Sends a text frame. A failure is reported by the next [`Socket::frame`]; the implementation bounds the wait.
    fn send(&mut self, text: &str) -> impl Future<Output = ()> + Send;

    /// Sends a close frame and drops the connection; the implementation bounds the wait.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text frame.
    Text(String),
    /// Any other frame, such as a ping.
    Other,
    /// The connection ended.
    Closed {
        /// The code of the close frame; `None` when the connection was lost.
        code: Option<CloseCode>,
        /// The reason of the close frame, or the error.
        reason: String,
    },
}
