use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connections::{ConnectionPermit, Phase};

/// A connection with its permit, which it keeps as long as it is open, even as a WebSocket.
pub(super) struct PermittedStream {
    stream: TcpStream,
    permit: Arc<ConnectionPermit>,
    /// Whether the peer has not read everything yet.
    waits: bool,
}

impl PermittedStream {
    pub(super) fn new(stream: TcpStream, permit: Arc<ConnectionPermit>) -> Self {
        Self { stream, permit, waits: false }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }

    /// Records what the peer has read.
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => {
                self.waits = true;
                self.permit.waits();
            }
            Poll::Ready(Ok(bytes)) if self.waits => self.permit.took(*bytes),
            Poll::Ready(_) => {}
        }
    }
}

impl AsyncRead for PermittedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.as_mut().stream().poll_read(cx, buf);
        if buf.filled().len() > before {
            self.permit.received();
        }
        read
    }
}

impl AsyncWrite for PermittedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.as_mut().stream().poll_write(cx, buf);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.as_mut().stream().poll_write_vectored(cx, bufs);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// This is called when everything is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.waits) {
            self.permit.took_all();
        }
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

/// The body of a response. When it is written and read, its connection is idle until the next request.
pub(super) struct ResponseBody {
    body: Body,
    permit: Arc<ConnectionPermit>,
}

impl ResponseBody {
    pub(super) fn new(body: Body, permit: Arc<ConnectionPermit>) -> Self {
        Self { body, permit }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.permit.set(Phase::Idle(Instant::now()));
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
