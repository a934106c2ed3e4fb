use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_protocol::{Client, CloseCode, Phase, Step};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::{Frame, ReaderOptions, Record, Refused, Socket};

/// What a test tells its reader; each is answered when it is done.
pub(crate) enum Command {
    Cut(oneshot::Sender<()>),
    StopReading(oneshot::Sender<()>),
    ReadAgain(oneshot::Sender<()>),
    Send(String, oneshot::Sender<()>),
}

/// The socket that the client core asked for.
enum Line {
    None,
    Opening(Pin<Box<dyn Future<Output = Result<Socket, Refused>> + Send>>),
    Open(Box<Socket>),
}

/// Opens and closes sockets as the client core says, and tells it what they say.
pub(crate) struct Driver {
    options: ReaderOptions,
    record: Arc<Mutex<Record>>,
    client: Client,
    line: Line,
    /// Which of the URLs is next.
    next_url: usize,
    reading: bool,
    started: Instant,
}

impl Driver {
    pub(crate) fn new(options: ReaderOptions, record: Arc<Mutex<Record>>) -> Self {
        let client = Client::new(options.since.clone());
        let started = Instant::now();
        Self { options, record, client, line: Line::None, next_url: 0, reading: true, started }
    }

    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            let step = self.client.step(self.now_ms(), fastrand::f64());
            locked(&self.record).note_phase(&self.client);
            let until_ms = match step {
                Step::Open { since, .. } => {
                    self.open(since);
                    continue;
                }
                Step::Drop => {
                    self.line = Line::None;
                    continue;
                }
                Step::Wait { until_ms } => until_ms,
            };
            let wake_at = self.wake_at(until_ms);
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                happened = self.line.next(self.reading) => self.tell(happened),
                () = sleep_until(wake_at) => self.hurry(),
            }
        }
    }

    fn open(&mut self, since: Option<String>) {
        let urls = &self.options.urls;
        let mut url = urls[self.next_url % urls.len()].clone();
        if let Some(since) = since {
            // A cursor is made of letters, digits, dots and dashes: nothing to escape.
            url = format!("{url}{}since={since}", if url.contains('?') { '&' } else { '?' });
        }
        let dial = self.options.dial.clone();
        self.line = Line::Opening(Box::pin(async move { Socket::open(&url, &dial).await }));
    }

    fn tell(&mut self, happened: Happened) {
        let now_ms = self.now_ms();
        match happened {
            Happened::Opened(socket) => self.line = Line::Open(socket),
            Happened::Refused(refused) => {
                locked(&self.record).note_refusal(refused);
                self.closed(None);
            }
            Happened::Heard(Frame::Text(text)) => {
                let heard = self.client.text(now_ms, &text);
                locked(&self.record).note(heard);
            }
            Happened::Heard(Frame::Closed(code)) => {
                locked(&self.record).note_close(code);
                self.closed(code);
            }
            Happened::Heard(Frame::Binary(_) | Frame::Ping | Frame::Pong) => self.client.alive(now_ms),
        }
    }

    fn closed(&mut self, code: Option<CloseCode>) {
        self.line = Line::None;
        self.next_url += 1;
        self.client.closed(self.now_ms(), code, fastrand::f64());
    }

    async fn obey(&mut self, command: Command) {
        let done = match command {
            Command::Cut(done) => {
                if let Line::Open(socket) = std::mem::replace(&mut self.line, Line::None) {
                    socket.cut();
                }
                self.closed(None);
                done
            }
            Command::StopReading(done) => {
                self.reading = false;
                done
            }
            Command::ReadAgain(done) => {
                self.reading = true;
                done
            }
            Command::Send(text, done) => {
                if let Line::Open(socket) = &mut self.line {
                    socket.send(&text).await;
                }
                done
            }
        };
        // The test may have stopped waiting.
        let _ = done.send(());
    }

    /// When to step again: a pause is cut short where the options say so.
    fn wake_at(&self, until_ms: Option<u64>) -> Option<Instant> {
        let at = until_ms.map(|ms| self.started + Duration::from_millis(ms))?;
        let soonest = self.options.pause_max.filter(|_| self.pauses()).map(|pause| Instant::now() + pause);
        Some(soonest.map_or(at, |soonest| soonest.min(at)))
    }

    fn hurry(&mut self) {
        if self.options.pause_max.is_some() && self.pauses() {
            self.client.connect_now(self.now_ms());
        }
    }

    fn pauses(&self) -> bool {
        matches!(self.client.phase(), Phase::Waiting { .. })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

enum Happened {
    Opened(Box<Socket>),
    Refused(Refused),
    Heard(Frame),
}

impl Line {
    /// What happens next on this line. It may be dropped while it waits.
    async fn next(&mut self, reading: bool) -> Happened {
        match self {
            Self::Opening(opening) => match opening.await {
                Ok(socket) => Happened::Opened(Box::new(socket)),
                Err(refused) => Happened::Refused(refused),
            },
            Self::Open(socket) if reading => Happened::Heard(socket.frame().await),
            Self::Open(_) | Self::None => pending().await,
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

pub(crate) fn locked(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
