//! A connection that counts the bytes of unfinished WebSocket messages: the socket on top of it holds these bytes and does
//! not report them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use super::MESSAGE_MAX_BYTES;
use super::command::MESSAGES;
use crate::limits::budget::{Budget, Permit};
use crate::limits::rate::Bucket;

/// A fragment with fewer bytes than this counts as a message.
const FRAGMENT_MIN_BYTES: u64 = 512;
/// The longest head of a frame: two bytes, a length of eight and a mask of four.
const HEAD_MAX_BYTES: usize = 14;

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The message is longer than [`MESSAGE_MAX_BYTES`].
    #[error("the message is too long")]
    TooLong,
    /// Unfinished messages hold too many bytes on this replica.
    #[error("too many messages are unfinished")]
    NoRoom,
    /// The message consists of too many small fragments.
    #[error("the message comes in too many fragments")]
    TooMany,
}

impl Fault {
    /// Returns the fault behind an error of the socket.
    pub(super) fn of(error: &tokio_tungstenite::tungstenite::Error) -> Option<Self> {
        let tokio_tungstenite::tungstenite::Error::Io(error) = error else { return None };
        error.get_ref()?.downcast_ref().copied()
    }
}

/// A connection that fails with a [`Fault`] when its client has too many unfinished bytes.
pub(crate) struct Counted<S> {
    stream: S,
    frames: Frames,
    budget: Arc<Budget>,
    network: Option<IpNet>,
    permit: Option<Permit>,
}

impl<S: AsyncRead + Unpin> Counted<S> {
    pub(super) fn new(stream: S, budget: Arc<Budget>, network: Option<IpNet>) -> Self {
        Self { stream, frames: Frames::default(), budget, network, permit: None }
    }

    /// Reads and drops bytes until the peer closes, at most for `limit`. Closing a connection with unread bytes sends a
    /// reset, which may overtake a close frame.
    pub(super) async fn drain(&mut self, limit: Duration) {
        let reading = async {
            let mut unread = [0; 1_024];
            while self.stream.read(&mut unread).await.is_ok_and(|length| length > 0) {}
        };
        let _ = timeout(limit, reading).await;
    }

    fn count(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.frames.take(bytes)?;
        let unfinished = self.frames.unfinished();
        if unfinished == 0 {
            self.permit = None;
            return Ok(());
        }
        let has_room = self.budget.try_hold(&mut self.permit, unfinished, self.network);
        if has_room { Ok(()) } else { Err(Fault::NoRoom) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => Poll::Ready(self.count(&buf.filled()[before..]).map_err(io::Error::other)),
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Follows the frames of a client (RFC 6455, section 5.2).
#[derive(Debug)]
struct Frames {
    head: [u8; HEAD_MAX_BYTES],
    head_bytes: usize,
    /// The bytes of this frame's payload that are still to come.
    left: u64,
    /// The bytes of the unfinished message, with the announced length of the current frame.
    message_bytes: u64,
    /// Whether this frame is the last of its message.
    is_last: bool,
    fragments: Bucket,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            head: [0; HEAD_MAX_BYTES],
            head_bytes: 0,
            left: 0,
            message_bytes: 0,
            is_last: false,
            fragments: Bucket::full(Instant::now()),
        }
    }
}

impl Frames {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= length as u64;
                bytes = &bytes[length..];
            } else {
                self.head[self.head_bytes] = *first;
                self.head_bytes += 1;
                bytes = rest;
                let Some(length) = self.head_complete() else { continue };
                self.begin(length)?;
            }
            if self.left == 0 && self.is_last {
                self.message_bytes = 0;
                self.is_last = false;
            }
        }
        Ok(())
    }

    /// Returns the length of the payload, once the head is complete.
    fn head_complete(&self) -> Option<u64> {
        let head = &self.head[..self.head_bytes];
        let second = *head.get(1)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (length_bytes, short) = match second & 0x7f {
            126 => (2, None),
            127 => (8, None),
            short => (0, Some(u64::from(short))),
        };
        if head.len() < 2 + length_bytes + mask {
            return None;
        }
        let long = head[2..2 + length_bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        Some(short.unwrap_or(long))
    }

    fn begin(&mut self, length: u64) -> Result<(), Fault> {
        let (is_final, is_control) = (self.head[0] & 0x80 != 0, self.head[0] & 0x08 != 0);
        (self.head_bytes, self.left) = (0, length);
        if is_control {
            // A control frame may come between the frames of a message, and is short; the socket refuses a longer one.
            return if length > 125 { Err(Fault::TooLong) } else { Ok(()) };
        }
        self.is_last = is_final;
        self.message_bytes = self.message_bytes.saturating_add(length);
        if self.message_bytes > MESSAGE_MAX_BYTES as u64 {
            return Err(Fault::TooLong);
        }
        if !is_final
            && length < FRAGMENT_MIN_BYTES
            && self.fragments.take(1, MESSAGES, Instant::now()).is_err()
        {
            return Err(Fault::TooMany);
        }
        Ok(())
    }

    fn unfinished(&self) -> usize {
        usize::try_from(self.message_bytes).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u8 = 1;
    const CONTINUED: u8 = 0;
    const PING: u8 = 9;
    const FINAL: u8 = 0x80;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            126..=65_535 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + length, b'x');
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_bytes_are_counted_for_any_split_of_the_input() {
        let all = [
            frame(FINAL | TEXT, 0),
            frame(FINAL | TEXT, 60_000),
            frame(TEXT, 600),
            frame(FINAL | PING, 5),
            frame(CONTINUED, 700),
            frame(FINAL | CONTINUED, 10),
        ]
        .concat();
        for step in [1, 2, 7, 100, all.len()] {
            let mut frames = Frames::default();
            let mut most = 0;
            for bytes in all.chunks(step) {
                frames.take(bytes).unwrap();
                most = most.max(frames.unfinished());
            }
            assert_eq!(frames.unfinished(), 0, "{step}");
            assert!(most == 60_000 || step == all.len(), "{step}: {most}");
        }
        let mut frames = Frames::default();
        frames.take(&[frame(TEXT, 600), frame(FINAL | PING, 125), frame(CONTINUED, 700)].concat()).unwrap();
        assert_eq!(frames.unfinished(), 1_300);
        frames.take(&frame(FINAL | CONTINUED, 1_000)[..20]).unwrap();
        assert_eq!(frames.unfinished(), 2_300, "the announced length counts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_too_long_fails_by_its_head() {
        for (bytes, fault) in [
            (frame(FINAL | TEXT, MESSAGE_MAX_BYTES), None),
            (frame(FINAL | TEXT, MESSAGE_MAX_BYTES + 1)[..14].to_vec(), Some(Fault::TooLong)),
            ([frame(TEXT, 60_000), frame(CONTINUED, 6_000)].concat(), Some(Fault::TooLong)),
            ([&[0x81, 0xff][..], &[0xff; 12]].concat(), Some(Fault::TooLong)),
            (frame(FINAL | PING, 126), Some(Fault::TooLong)),
            (
                vec![frame(TEXT, 0)]
                    .into_iter()
                    .chain((0..99).map(|_| frame(CONTINUED, 0)))
                    .flatten()
                    .collect(),
                Some(Fault::TooMany),
            ),
        ] {
            assert_eq!(Frames::default().take(&bytes).err(), fault);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_bytes_are_charged_and_released() {
        let budget = Budget::new(8 * 2_000);
        let network = Some("192.0.2.1/32".parse().unwrap());
        let socket = || Counted::new(tokio::io::empty(), Arc::clone(&budget), network);
        let (mut one, mut two) = (socket(), socket());
        one.count(&frame(TEXT, 600)).unwrap();
        one.count(&frame(CONTINUED, 600)).unwrap();
        two.count(&frame(FINAL | TEXT, 5_000)).unwrap();
        assert_eq!(two.count(&frame(TEXT, 1_000)), Err(Fault::NoRoom), "an address has its share");
        one.count(&frame(FINAL | CONTINUED, 0)).unwrap();
        let mut three = socket();
        three.count(&frame(TEXT, 1_000)).unwrap();
        assert_eq!(three.count(&frame(CONTINUED, 1_001)), Err(Fault::NoRoom));
    }
}
