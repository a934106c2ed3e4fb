//! The rate at which a peer has to read. A peer that reads one byte now and then holds its connection and memory as long as
//! one that reads nothing.

use std::time::Duration;

use tokio::time::Instant;

/// A reader that reads nothing for this long is closed as slow.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// The minimum rate of a reader of events, unless it has read everything.
pub(super) const READER_PACE: Pace = Pace { bytes: 64 * 1024, within: WRITE_TIMEOUT };
/// The minimum rate of a client that reads a response, unless it has read everything. A proxy or a kernel reads large parts
/// with long pauses for a client on a slow line.
pub(super) const ANSWER_PACE: Pace = Pace { bytes: 256 * 1024, within: Duration::from_secs(60) };

/// A number of bytes within a time.
pub(super) struct Pace {
    pub(super) bytes: usize,
    pub(super) within: Duration,
}

/// The bytes that a peer has read since output waits for it.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) since: Instant,
    bytes: usize,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    /// Records that the peer read bytes; its time restarts once it has read enough.
    pub(super) fn took(&mut self, bytes: usize, pace: &Pace) {
        self.bytes += bytes;
        if self.bytes >= pace.bytes {
            *self = Self::new();
        }
    }
}
