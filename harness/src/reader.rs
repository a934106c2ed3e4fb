use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::driver::{Command, Driver};
use crate::{DialOptions, Received, Record};

/// Maximum commands that wait for the driver.
const COMMANDS_MAX: usize = 16;
/// A reader without progress for this time has failed its test.
const STALL_DEADLINE: Duration = Duration::from_secs(30);
/// The wait before the record is checked again.
const POLL: Duration = Duration::from_millis(10);

/// How a reader connects.
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    /// The URLs to connect to; the next one is tried when a connection fails or ends.
    pub urls: Vec<String>,
    /// A cursor to resume from.
    pub since: Option<String>,
    /// How each socket is opened.
    pub dial: DialOptions,
    /// The longest pause before a reconnect, for tests that cut a reader often; `None` keeps the client's own back-off.
    pub pause_max: Option<Duration>,
}

impl ReaderOptions {
    /// Options of a reader that starts at the current position and reconnects within 20 ms.
    pub fn new(urls: &[&str]) -> Self {
        Self {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            since: None,
            dial: DialOptions::default(),
            pause_max: Some(Duration::from_millis(20)),
        }
    }
}

/// A reader over WebSocket that reconnects and resumes by itself, like the viewer: the same client core drives it. It
/// records everything that it receives, and stops when it is dropped.
#[derive(Debug)]
pub struct Reader {
    record: Arc<Mutex<Record>>,
    commands: mpsc::Sender<Command>,
    _stop: DropGuard,
}

impl Reader {
    /// Connects to `url`, and returns when it was welcomed: it receives everything that is pushed later.
    ///
    /// # Panics
    /// When no welcome comes.
    pub async fn connect(url: &str) -> Self {
        Self::connect_with(ReaderOptions::new(&[url])).await
    }

    /// [`Reader::connect`] with options.
    ///
    /// # Panics
    /// When no welcome comes.
    pub async fn connect_with(options: ReaderOptions) -> Self {
        let reader = Self::start(options);
        reader.until("a welcome", |record| !record.welcomes.is_empty()).await;
        reader
    }

    /// Starts to connect, and returns at once.
    ///
    /// # Panics
    /// Without any URL, or outside a tokio runtime.
    pub fn start(options: ReaderOptions) -> Self {
        assert!(!options.urls.is_empty(), "a reader needs a URL");
        let record = Arc::new(Mutex::new(Record::default()));
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let stop = CancellationToken::new();
        let driver = Driver::new(options, Arc::clone(&record));
        let stopped = stop.clone();
        TaskTracker::new().spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = driver.run(inbox) => {}
            }
        });
        Self { record, commands, _stop: stop.drop_guard() }
    }

    /// Returns everything that it has received.
    pub fn record(&self) -> Record {
        self.record.lock().clone()
    }

    /// Returns the notifications so far, each once, in the order in which they arrived.
    pub fn received(&self) -> Vec<Received> {
        self.record.lock().received.clone()
    }

    /// Returns the number of notifications so far.
    pub fn count(&self) -> usize {
        self.record.lock().received.len()
    }

    /// Waits until it has `count` notifications, and returns all it has.
    ///
    /// # Panics
    /// When none arrived for 30 seconds. (So a slow machine does not fail the test.)
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let (mut seen, mut end) = (self.count(), Instant::now() + STALL_DEADLINE);
        while seen < count {
            tokio::time::sleep(POLL).await;
            let now = self.count();
            if now > seen {
                (seen, end) = (now, Instant::now() + STALL_DEADLINE);
            }
            assert!(Instant::now() < end, "the reader stays at {seen} of {count}: {}", self.summary());
        }
        self.received()
    }

    /// Waits until the record fulfils `condition`.
    ///
    /// # Panics
    /// When it does not within 30 seconds.
    pub async fn until(&self, what: &str, condition: impl Fn(&Record) -> bool) {
        let end = Instant::now() + STALL_DEADLINE;
        while !condition(&self.record.lock()) {
            assert!(Instant::now() < end, "the reader never saw {what}: {}", self.summary());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Resets its connection, like a lost network; it reconnects by itself.
    pub async fn cut(&self) {
        self.command(Command::Cut).await;
    }

    /// Leaves frames in the kernel's buffers until [`Reader::read_again`].
    pub async fn stop_reading(&self) {
        self.command(Command::StopReading).await;
    }

    /// Reads again.
    pub async fn read_again(&self) {
        self.command(Command::ReadAgain).await;
    }

    /// Sends a text frame, when there is a connection.
    pub async fn send(&self, text: &str) {
        let text = text.to_owned();
        self.command(|done| Command::Send(text, done)).await;
    }

    /// Returns when the driver has done it.
    async fn command(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, is_done) = oneshot::channel();
        self.commands.send(command(done)).await.expect("a reader that runs");
        is_done.await.expect("a reader that runs");
    }

    /// Returns a summary, for the message of a failed test.
    fn summary(&self) -> String {
        let record = self.record.lock();
        format!(
            "{} received, {} repeated, {} welcomes, phase {:?}, closes {:?}, gaps {:?}, refusals {:?}, errors {:?}, unreadable {:?}",
            record.received.len(),
            record.repeated,
            record.welcomes.len(),
            record.phases.last(),
            last(&record.closes),
            last(&record.gaps),
            last(&record.refusals),
            last(&record.errors),
            last(&record.unreadable),
        )
    }
}

fn last<T>(list: &[T]) -> &[T] {
    &list[list.len().saturating_sub(3)..]
}
