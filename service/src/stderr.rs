//! Lines to stderr. The reader of stderr may be slow, stopped or gone, and its disk may be full: a separate thread writes,
//! and no other code waits for it.

use std::io::Write;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Maximum bytes that wait to be written. A further line is dropped and counted.
const WAITING_MAX_BYTES: usize = 256 * 1024;
/// A longer line is cut.
const LINE_MAX_BYTES: usize = 16 * 1024;
/// How long waiting lines may be written at the end of a process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static STDERR: LazyLock<Lines> = LazyLock::new(|| Lines::start(std::io::stderr()));

/// Returns the number of lines that were dropped because stderr was blocked.
pub fn log_lines_dropped() -> u64 {
    STDERR.state.lock().dropped
}

/// Queues a line for stderr. It never waits or fails.
pub fn report(line: &str) {
    STDERR.push(format!("{line}\n").as_bytes());
}

/// Waits until the queued lines are written, with a timeout.
pub(crate) fn flush() {
    STDERR.flush(FLUSH_TIMEOUT);
}

/// The writer of the log: each call of `write` is one line.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        STDERR.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Lines on their way to a stream, and the thread that writes them.
#[derive(Clone)]
struct Lines {
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    lines: u64,
    /// Whether the thread is writing its last batch.
    writing: bool,
    dropped: u64,
}

impl Lines {
    fn start(stream: impl Write + Send + 'static) -> Self {
        let lines = Self { state: Arc::default(), changed: Arc::default() };
        let writer = lines.clone();
        // Without a thread the lines are dropped and counted, which is no reason to end the process.
        let _ = std::thread::Builder::new().name("stderr".to_owned()).spawn(move || writer.write_to(stream));
        lines
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        let (line, end): (_, &[u8]) = match line.get(..LINE_MAX_BYTES) {
            Some(cut) => (cut, b"\n"),
            None => (line, b""),
        };
        if state.waiting.len() + line.len() + end.len() > WAITING_MAX_BYTES {
            state.dropped += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        state.waiting.extend_from_slice(end);
        state.lines += 1;
        drop(state);
        self.changed.notify_all();
    }

    fn flush(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut state = self.state.lock();
        while !state.waiting.is_empty() || state.writing {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            self.changed.wait_for(&mut state, left);
        }
    }

    /// Writes the queued lines, as long as the process lives.
    fn write_to(&self, mut stream: impl Write) {
        let mut reported = 0;
        loop {
            let (bytes, lines, dropped) = self.take();
            let mut written = stream.write_all(&bytes).and_then(|()| stream.flush()).is_ok();
            // A reader that continues sees how many lines are missing.
            if written && dropped > reported {
                written = writeln!(
                    stream,
                    "{} lines of the log were dropped here: stderr was blocked",
                    dropped - reported
                )
                .is_ok();
                reported = if written { dropped } else { reported };
            }
            let mut state = self.state.lock();
            state.writing = false;
            if !written {
                state.dropped += lines;
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for lines and takes all of them, with their number and the number of lines dropped so far.
    fn take(&self) -> (Vec<u8>, u64, u64) {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            self.changed.wait(&mut state);
        }
        state.writing = true;
        (std::mem::take(&mut state.waiting), std::mem::take(&mut state.lines), state.dropped)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn lines_are_written_in_order_and_a_long_one_is_cut() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lines = Lines::start(writer);
        for line in [&b"one\n"[..], &[b'x'; LINE_MAX_BYTES + 1], b"three\n"] {
            lines.push(line);
        }
        let mut written = vec![0; 4 + LINE_MAX_BYTES + 1 + 6];
        reader.read_exact(&mut written).unwrap();
        lines.flush(TIMEOUT);
        assert!(written.starts_with(b"one\nxxx") && written.ends_with(b"xxx\nthree\n"));
        assert_eq!(lines.state.lock().dropped, 0);
    }

    #[test]
    fn a_blocked_pipe_costs_lines_and_no_time_and_gets_their_number_later() {
        let (mut reader, writer) = io::pipe().unwrap();
        let lines = Lines::start(writer);
        // More than the pipe, the batch being written and the queue can hold together.
        while lines.state.lock().dropped < 3 {
            lines.push(&[b'x'; 1_000]);
        }
        lines.flush(Duration::from_millis(10));
        let dropped = lines.state.lock().dropped;
        let expected = format!("{dropped} lines of the log were dropped here");
        let mut written = Vec::new();
        while !String::from_utf8_lossy(&written).contains(&expected) {
            let mut chunk = [0; 4_096];
            let length = reader.read(&mut chunk).unwrap();
            written.extend_from_slice(&chunk[..length]);
            // The first write was taken before lines were dropped, so a later one reports them.
            lines.push(b"on\n");
        }
    }

    #[test]
    fn lines_to_a_broken_pipe_are_counted() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let lines = Lines::start(writer);
        lines.push(b"one\n");
        lines.flush(TIMEOUT);
        assert_eq!(lines.state.lock().dropped, 1);
        lines.push(b"two\n");
        lines.flush(TIMEOUT);
        assert_eq!(lines.state.lock().dropped, 2);
    }
}
