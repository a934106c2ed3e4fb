//! How fast a peer has to take what is written to it. One that takes a byte now and then keeps its place, and what is held for
//! it, as long as one that takes nothing.

use std::time::Duration;

use tokio::time::Instant;

/// A reader that takes nothing for this long is closed as slow.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// Readers of events take this much in that time, or all that there is.
pub(super) const READER_PACE: Pace = Pace { bytes: 64 * 1024, within: WRITE_TIMEOUT };
/// A client takes this much of an answer in this time, or the rest of it. A proxy or a kernel takes large parts with long
/// pauses for a client on a slow line.
pub(super) const ANSWER_PACE: Pace = Pace { bytes: 256 * 1024, within: Duration::from_secs(60) };

/// So many bytes in so much time.
pub(super) struct Pace {
    pub(super) bytes: usize,
    pub(super) within: Duration,
}

/// What a peer has taken since something waits for it.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) since: Instant,
    bytes: usize,
}

impl Taking {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    /// Takes in that the peer took so many bytes: its time begins anew when it took enough.
    pub(super) fn took(&mut self, bytes: usize, pace: &Pace) {
        self.bytes += bytes;
        if self.bytes >= pace.bytes {
            *self = Self::new();
        }
    }
}
