use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::places::Place;

/// Bytes of a body that are thrown away at most.
const THROWN_AWAY_MAX_BYTES: usize = 1024 * 1024;
/// What has not come by then is not waited for.
const THROW_AWAY_TIMEOUT: Duration = Duration::from_secs(2);

/// The body of a request. What nobody has read of it when the request is answered is read and thrown away, within bounds: a
/// connection that is closed while bytes arrive is reset, and the client loses the answer that tells why it was refused
/// ([RFC 9112, section 9.6](https://www.rfc-editor.org/rfc/rfc9112#section-9.6)).
pub(super) struct Asked {
    body: Option<Incoming>,
    place: Arc<Place>,
}

impl Asked {
    pub(super) fn new(body: Incoming, place: Arc<Place>) -> Self {
        Self { body: Some(body), place }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        if let Some(body) = unread {
            TaskTracker::new().spawn(throw_away(body, Arc::clone(&self.place)));
        }
    }
}

async fn throw_away(mut body: Incoming, place: Arc<Place>) {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > THROWN_AWAY_MAX_BYTES {
                return;
            }
        }
    };
    // The connection of a body that does not end within the bounds is closed, as its body is dropped.
    let _ = timeout(THROW_AWAY_TIMEOUT, reading).await;
    place.rested();
}

impl HttpBody for Asked {
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
