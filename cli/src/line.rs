use std::future::pending;
use std::pin::Pin;

use crate::socket::{Frame, Refused, Socket};

/// The socket that the client core asked for.
pub(crate) enum Line {
    None,
    Opening(Pin<Box<dyn Future<Output = Result<Socket, Refused>> + Send>>),
    Open(Box<Socket>),
}

/// What happened on a line.
pub(crate) enum Happened {
    Opened(Box<Socket>),
    Refused(Refused),
    Heard(Frame),
}

impl Line {
    /// What happens next, if anything does. It may be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Happened {
        match self {
            Self::Opening(opening) => match opening.await {
                Ok(socket) => Happened::Opened(Box::new(socket)),
                Err(refused) => Happened::Refused(refused),
            },
            Self::Open(socket) => Happened::Heard(socket.frame().await),
            Self::None => pending().await,
        }
    }

    /// Says something, if the line is open.
    pub(crate) async fn say(&mut self, text: String) {
        if let Self::Open(socket) = self {
            socket.say(text).await;
        }
    }

    pub(crate) async fn close(self) {
        if let Self::Open(socket) = self {
            socket.close().await;
        }
    }
}
