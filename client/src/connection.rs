use std::collections::VecDeque;
use std::future::pending;
use std::mem;
use std::time::Duration;

use carillon_protocol::limits::ACK_AFTER_MS;
use carillon_protocol::{Acks, Client, ClientEvent, ClientMessage, CloseCode, Delivery, Phase, Step};
use tokio::time::Instant;

use crate::line::{Line, LineEvent};
use crate::{Dial, Frame, Socket};

/// An event of a connection.
#[derive(Debug)]
pub enum Event<R> {
    /// A socket is being opened.
    Connecting,
    /// The socket is open; the server's welcome follows.
    Opened,
    /// The socket could not be opened, for this reason.
    Refused(R),
    /// The server sent a text frame.
    Received {
        /// The frame.
        text: String,
        /// The event that it brings.
        event: ClientEvent,
    },
    /// The server sent a frame that is not a text frame.
    Alive,
    /// The connection ended.
    Closed {
        /// The code of the close frame; `None` when the connection was lost.
        code: Option<CloseCode>,
        /// The reason of the close frame, or the error.
        reason: String,
    },
    /// The server was silent for too long, so the socket was dropped.
    Silent,
}

/// A connection that reconnects and resumes for as long as [`Connection::next`] is called.
pub struct Connection<D: Dial> {
    dial: D,
    client: Client,
    line: Line<D>,
    acks: Acks,
    /// Whether a user is signed in, for whom messages are acknowledged.
    acknowledges: bool,
    /// Acknowledgements that are due, bounded by `ACKS_WAITING_MAX_IDS`.
    unsent: VecDeque<String>,
    pause_max: Option<Duration>,
    started: Instant,
}

impl<D: Dial> Connection<D> {
    /// Creates a connection that resumes after the cursor `since`, or starts now. It connects at the first
    /// [`Connection::next`].
    pub fn new(dial: D, since: Option<String>) -> Self {
        Self {
            dial,
            client: Client::new(since),
            line: Line::None,
            acks: Acks::default(),
            acknowledges: false,
            unsent: VecDeque::new(),
            pause_max: None,
            started: Instant::now(),
        }
    }

    /// Shortens the pauses before a reconnect to at most this long.
    pub fn with_pause_max(mut self, pause_max: Option<Duration>) -> Self {
        self.pause_max = pause_max;
        self
    }

    /// Waits for the next event. This is cancel-safe. After the server closed for good ([`Phase::Stopped`]) it waits for
    /// ever.
    pub async fn next(&mut self) -> Event<D::Refused> {
        loop {
            self.acknowledge(self.now_ms()).await;
            let until_ms = match self.client.step(self.now_ms(), fastrand::f64()) {
                Step::Open { since, topics } => {
                    self.line = Line::Opening(self.dial.open(since.as_deref(), &topics));
                    return Event::Connecting;
                }
                Step::Drop => {
                    self.drop_line();
                    return Event::Silent;
                }
                Step::Wait { until_ms } => until_ms,
            };
            let wake_at = self.wake_at(until_ms);
            tokio::select! {
                biased;
                line_event = self.line.next() => return self.handle(line_event),
                () = sleep_until(wake_at) => self.shorten_pause(),
            }
        }
    }

    /// Subscribes to a topic, now and after each reconnect.
    pub async fn subscribe(&mut self, topic: &str) {
        let message = self.client.subscribe(topic);
        self.send_message(message).await;
    }

    /// Unsubscribes from a topic.
    pub async fn unsubscribe(&mut self, topic: &str) {
        let message = self.client.unsubscribe(topic);
        self.send_message(message).await;
    }

    /// Sends a text frame, when the socket is open.
    pub async fn send(&mut self, text: &str) {
        self.line.send(text).await;
    }

    /// Acknowledges a notification that was shown, when it is a message of another user to the user who is signed in.
    /// Acknowledgements are sent in batches by [`Connection::next`] and [`Connection::close`].
    pub fn shown(&mut self, delivery: &Delivery) {
        if let Some(message) = delivery.acknowledgement().filter(|_| self.acknowledges) {
            self.acks.shown(self.now_ms(), message);
        }
    }

    /// Drops the connection as if it were lost, and returns its socket. The next one is opened after a pause.
    pub fn disconnect(&mut self) -> Option<D::Socket> {
        let line = self.drop_line();
        self.client.closed(self.now_ms(), None, fastrand::f64());
        if let Line::Open(socket) = line { Some(*socket) } else { None }
    }

    /// Sends the acknowledgements that wait, closes the socket, and returns the cursor to resume from.
    pub async fn close(mut self) -> Option<String> {
        self.acknowledge(self.now_ms() + ACK_AFTER_MS).await;
        if let Line::Open(socket) = self.line {
            socket.close().await;
        }
        self.client.cursor().map(ToOwned::to_owned)
    }

    /// The phase of the connection.
    pub fn phase(&self) -> &Phase {
        self.client.phase()
    }

    /// The remaining pause before the next attempt, while it waits for one.
    pub fn pause(&self) -> Option<Duration> {
        let Phase::Waiting { until_ms } = self.phase() else { return None };
        Some(Duration::from_millis(until_ms.saturating_sub(self.now_ms())))
    }

    /// The socket, when it is open.
    pub fn socket(&self) -> Option<&D::Socket> {
        if let Line::Open(socket) = &self.line { Some(socket) } else { None }
    }

    /// The dialer, to change how the next socket is opened.
    pub fn dial_mut(&mut self) -> &mut D {
        &mut self.dial
    }

    fn handle(&mut self, line_event: LineEvent<D>) -> Event<D::Refused> {
        match line_event {
            LineEvent::Opened(socket) => {
                self.line = Line::Open(socket);
                Event::Opened
            }
            LineEvent::Refused(refused) => {
                self.closed(None);
                Event::Refused(refused)
            }
            LineEvent::Received(Frame::Text(text)) => self.receive(text),
            LineEvent::Received(Frame::Other) => {
                self.client.alive(self.now_ms());
                Event::Alive
            }
            LineEvent::Received(Frame::Closed { code, reason }) => {
                self.closed(code);
                Event::Closed { code, reason }
            }
        }
    }

    fn receive(&mut self, text: String) -> Event<D::Refused> {
        let now_ms = self.now_ms();
        let event = self.client.text(now_ms, &text);
        if let ClientEvent::Welcome(welcome) = &event {
            self.acknowledges = welcome.user.is_some();
            self.acks.welcomed(now_ms);
        }
        Event::Received { text, event }
    }

    fn closed(&mut self, code: Option<CloseCode>) {
        self.drop_line();
        self.client.closed(self.now_ms(), code, fastrand::f64());
    }

    /// Unsent acknowledgements are dropped with the line: [`Acks`] repeats them on the next one.
    fn drop_line(&mut self) -> Line<D> {
        self.unsent.clear();
        mem::replace(&mut self.line, Line::None)
    }

    /// Sends the frames that are due. A frame leaves the queue only once it is sent, so that none is lost when the future is
    /// dropped; the server accepts repeated acknowledgements.
    async fn acknowledge(&mut self, now_ms: u64) {
        if !self.is_live() {
            return;
        }
        self.unsent.extend(self.acks.frames(now_ms).iter().map(ClientMessage::to_json));
        while let Some(text) = self.unsent.front() {
            self.line.send(text).await;
            self.unsent.pop_front();
        }
    }

    async fn send_message(&mut self, message: Option<ClientMessage>) {
        if let Some(message) = message {
            self.line.send(&message.to_json()).await;
        }
    }

    /// When to step again. Acknowledgements that are due without a live connection wait for its welcome.
    fn wake_at(&self, until_ms: Option<u64>) -> Option<Instant> {
        let acks_ms = self.acks.wake_at_ms().filter(|_| self.is_live());
        let at_ms = [until_ms, acks_ms].into_iter().flatten().min()?;
        let at = self.started + Duration::from_millis(at_ms);
        let soonest = self.pause_max.filter(|_| self.is_waiting()).map(|pause| Instant::now() + pause);
        Some(soonest.map_or(at, |soonest| soonest.min(at)))
    }

    fn shorten_pause(&mut self) {
        if self.pause_max.is_some() && self.is_waiting() {
            self.client.connect_now(self.now_ms());
        }
    }

    fn is_live(&self) -> bool {
        matches!(self.phase(), Phase::Live { .. })
    }

    fn is_waiting(&self) -> bool {
        matches!(self.phase(), Phase::Waiting { .. })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
