use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carillon_client::{Connection, Dial, Event, Opening};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{Frame, ReaderOptions, Record, Refused, Socket};

/// A command of a test to its reader, which is answered when it is done.
pub(crate) enum Command {
    Cut(oneshot::Sender<()>),
    StopReading(oneshot::Sender<()>),
    ReadAgain(oneshot::Sender<()>),
    Send(String, oneshot::Sender<()>),
}

/// Opens the sockets of a reader, at one URL after the other.
struct Dialer {
    options: ReaderOptions,
    /// The index of the next URL.
    next_url: usize,
    reading: Arc<AtomicBool>,
}

/// A socket that leaves frames in the kernel's buffers while the reader does not read.
struct ReaderSocket {
    socket: Socket,
    reading: Arc<AtomicBool>,
}

impl Dial for Dialer {
    type Socket = ReaderSocket;
    type Refused = Refused;

    fn open(&mut self, since: Option<&str>, _topics: &[String]) -> Opening<ReaderSocket, Refused> {
        let urls = &self.options.urls;
        let mut url = urls[self.next_url % urls.len()].clone();
        if let Some(since) = since {
            // A cursor consists of letters, digits, dots and dashes, so it needs no escaping.
            url = format!("{url}{}since={since}", if url.contains('?') { '&' } else { '?' });
        }
        let dial = self.options.dial.clone();
        let reading = Arc::clone(&self.reading);
        Box::pin(async move { Ok(ReaderSocket { socket: Socket::open(&url, &dial).await?, reading }) })
    }
}

impl carillon_client::Socket for ReaderSocket {
    async fn frame(&mut self) -> carillon_client::Frame {
        if !self.reading.load(Ordering::Relaxed) {
            return pending().await;
        }
        match self.socket.frame().await {
            Frame::Text(text) => carillon_client::Frame::Text(text),
            Frame::Closed(code) => carillon_client::Frame::Closed { code, reason: String::new() },
            Frame::Binary(_) | Frame::Ping | Frame::Pong => carillon_client::Frame::Other,
        }
    }

    async fn send(&mut self, text: &str) {
        self.socket.send(text).await;
    }

    async fn close(self) {
        self.socket.close().await;
    }
}

/// Records the events of a reader's connection, and runs the commands of its test.
pub(crate) struct Driver {
    connection: Connection<Dialer>,
    record: Arc<Mutex<Record>>,
    reading: Arc<AtomicBool>,
}

impl Driver {
    pub(crate) fn new(options: ReaderOptions, record: Arc<Mutex<Record>>) -> Self {
        let reading = Arc::new(AtomicBool::new(true));
        let (since, pause_max) = (options.since.clone(), options.pause_max);
        let dialer = Dialer { options, next_url: 0, reading: Arc::clone(&reading) };
        let connection = Connection::new(dialer, since).with_pause_max(pause_max);
        Self { connection, record, reading }
    }

    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.run_command(command).await,
                    None => return,
                },
                event = self.connection.next() => self.record(event),
            }
            self.record.lock().add_phase(self.connection.phase());
        }
    }

    fn record(&mut self, event: Event<Refused>) {
        match event {
            Event::Refused(refused) => {
                self.record.lock().add_refusal(refused);
                self.connection.dial_mut().next_url += 1;
            }
            Event::Received { event, .. } => self.record.lock().add(event),
            Event::Closed { code, .. } => {
                self.record.lock().add_close(code);
                self.connection.dial_mut().next_url += 1;
            }
            Event::Connecting | Event::Opened | Event::Alive | Event::Silent => {}
        }
    }

    async fn run_command(&mut self, command: Command) {
        let done = match command {
            Command::Cut(done) => {
                if let Some(reader) = self.connection.disconnect() {
                    reader.socket.cut();
                }
                self.connection.dial_mut().next_url += 1;
                done
            }
            Command::StopReading(done) => {
                self.reading.store(false, Ordering::Relaxed);
                done
            }
            Command::ReadAgain(done) => {
                self.reading.store(true, Ordering::Relaxed);
                done
            }
            Command::Send(text, done) => {
                self.connection.send(&text).await;
                done
            }
        };
        // The test may have stopped waiting.
        let _ = done.send(());
    }
}
