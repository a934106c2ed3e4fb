use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::connections::ConnectionPermit;

/// Maximum bytes of a body that are dropped.
const DRAINED_MAX_BYTES: usize = 1024 * 1024;
/// How long the rest of a body is waited for.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The body of a request. The unread rest is read and dropped when the request is answered, within bounds: a connection that
/// is closed while bytes arrive is reset, and the client loses the response with the reason of its refusal ([RFC 9112,
/// section 9.6](https://www.rfc-editor.org/rfc/rfc9112#section-9.6)).
pub(super) struct RequestBody {
    body: Option<Incoming>,
    permit: Arc<ConnectionPermit>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, permit: Arc<ConnectionPermit>) -> Self {
        Self { body: Some(body), permit }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        if let Some(body) = unread {
            TaskTracker::new().spawn(drain(body, Arc::clone(&self.permit)));
        }
    }
}

async fn drain(mut body: Incoming, permit: Arc<ConnectionPermit>) {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DRAINED_MAX_BYTES {
                return;
            }
        }
    };
    // The connection of a body that does not end within the bounds is closed when its body is dropped.
    let _ = timeout(DRAIN_TIMEOUT, reading).await;
    permit.rested();
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
