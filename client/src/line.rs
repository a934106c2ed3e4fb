use std::future::pending;

use crate::{Dial, Frame, Opening, Socket};

/// The socket that the client core requested.
pub(crate) enum Line<D: Dial> {
    None,
    Opening(Opening<D::Socket, D::Refused>),
    Open(Box<D::Socket>),
}

/// An event of the line.
pub(crate) enum LineEvent<D: Dial> {
    Opened(Box<D::Socket>),
    Refused(D::Refused),
    Received(Frame),
}

impl<D: Dial> Line<D> {
    /// Waits for the next event. This is cancel-safe.
    pub(crate) async fn next(&mut self) -> LineEvent<D> {
        match self {
            Self::Opening(opening) => match opening.await {
                Ok(socket) => LineEvent::Opened(Box::new(socket)),
                Err(refused) => LineEvent::Refused(refused),
            },
            Self::Open(socket) => LineEvent::Received(socket.frame().await),
            Self::None => pending().await,
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        if let Self::Open(socket) = self {
            socket.send(text).await;
        }
    }
}
