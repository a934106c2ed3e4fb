use std::future::pending;

use crate::{Dial, Frame, Opening, Socket};

/// The socket that the client core asked for.
pub(crate) enum Line<D: Dial> {
    None,
    Opening(Opening<D::Socket, D::Refused>),
    Open(Box<D::Socket>),
}

/// What happened on a line.
pub(crate) enum Happened<D: Dial> {
    Opened(Box<D::Socket>),
    Refused(D::Refused),
    Received(Frame),
}

impl<D: Dial> Line<D> {
    /// Waits for the next thing that happens. The future may be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Happened<D> {
        match self {
            Self::Opening(opening) => match opening.await {
                Ok(socket) => Happened::Opened(Box::new(socket)),
                Err(refused) => Happened::Refused(refused),
            },
            Self::Open(socket) => Happened::Received(socket.frame().await),
            Self::None => pending().await,
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        if let Self::Open(socket) = self {
            socket.send(text).await;
        }
    }
}
