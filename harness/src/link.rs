use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// Bytes that a direction of a connection holds.
const BUFFER_BYTES: usize = 16 * 1024;

/// What a proxied connection does with the bytes that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Forwards it.
    Pass,
    /// Drops them, and hides that a side has closed.
    Swallow,
    /// Forwards requests, and only this many more bytes of the replies.
    LoseReplies { after_bytes: usize },
    /// Resets both sides at once, for good.
    Cut,
}

/// A side was lost without a close, so the other side gets a reset.
pub(crate) struct Broken;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Requests,
    Replies,
}

/// Carries one direction of a connection until its source closes.
pub(crate) async fn carry(
    direction: Direction,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut link: watch::Receiver<Link>,
    lost_bytes: &AtomicU64,
) -> Result<(), Broken> {
    let mut buffer = vec![0; BUFFER_BYTES];
    // Replies that were forwarded since the link last changed.
    let mut replied = 0;
    loop {
        let read = from.read(&mut buffer).await;
        if link.has_changed().unwrap_or_default() {
            replied = 0;
        }
        let now = *link.borrow_and_update();
        let Ok(read @ 1..) = read else {
            if now == Link::Swallow {
                let _ = link.wait_for(|link| *link != Link::Swallow).await;
            }
            read.map_err(|_| Broken)?;
            return to.shutdown().await.map_err(|_| Broken);
        };
        let forwarded = match now {
            Link::Pass => read,
            Link::LoseReplies { .. } if direction == Direction::Requests => read,
            Link::LoseReplies { after_bytes } => read.min(after_bytes.saturating_sub(replied)),
            Link::Swallow | Link::Cut => 0,
        };
        replied += forwarded;
        lost_bytes.fetch_add((read - forwarded) as u64, Ordering::SeqCst);
        to.write_all(&buffer[..forwarded]).await.map_err(|_| Broken)?;
    }
}
