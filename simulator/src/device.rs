//! A device: the client core and the inbox of the viewer, over the simulated network.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use carillon_client::{Connection, Dial, Event, Frame, Opening, Socket};
use carillon_frontend::clock::Now;
use carillon_frontend::inbox::{self, Inbox};
use carillon_harness::Signer;
use carillon_protocol::received::{ReadPosition, StatusChange};
use carillon_protocol::{ClientEvent, CloseCode, Cursor, ServerMessage, Status};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::plan::TOPIC;
use crate::replica::SECRET;
use crate::world::World;

/// How long a token lasts: connections outlive it.
const TOKEN_LASTS_MS: u64 = 25_000;
/// Messages to a device that wait.
pub(crate) const COMMANDS_MAX: usize = 64;

/// What a device is to do.
#[derive(Debug)]
pub(crate) enum Command {
    Send { id: String, to: String },
    ReadAll,
}

/// What a device showed.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) from: Option<String>,
    pub(crate) audience: String,
    pub(crate) cursor: Option<Cursor>,
}

/// What happened on a device.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) shown: Vec<Shown>,
    pub(crate) gaps_at_ms: Vec<u64>,
    pub(crate) statuses: BTreeMap<String, Vec<Status>>,
    pub(crate) refused: Vec<String>,
    pub(crate) unreadable: Vec<String>,
    pub(crate) welcomes: usize,
    pub(crate) stopped: Option<CloseCode>,
    pub(crate) is_live: bool,
    /// At the end: what the inbox counts as unread, and what of its rows lies behind the position that was read.
    pub(crate) unread: usize,
    pub(crate) unread_rows: usize,
    pub(crate) rows: Vec<String>,
}

struct Dialer {
    world: Arc<World>,
    device: usize,
    user: Option<&'static str>,
}

struct Line(WebSocketStream<DuplexStream>);

impl Dial for Dialer {
    type Socket = Line;
    type Refused = String;

    fn open(&mut self, since: Option<&str>, _topics: &[String]) -> Opening<Line, String> {
        let (world, device, user) = (Arc::clone(&self.world), self.device, self.user);
        let mut url = format!("ws://carillon/ws?topic={TOPIC}");
        if let Some(since) = since {
            url = format!("{url}&since={since}");
        }
        if let Some(user) = user {
            let expires_s = (world.now_ms() + TOKEN_LASTS_MS) / 1_000;
            let token = Signer::secret(SECRET).token(&json!({ "user_id": user, "exp": expires_s }));
            url = format!("{url}&token={token}");
        }
        Box::pin(async move {
            // A device notices after a while that nothing answers.
            let Some(io) = world.dial(device) else {
                sleep(Duration::from_millis(20)).await;
                return Err("nothing answers".to_owned());
            };
            match tokio_tungstenite::client_async(url, io).await {
                Ok((stream, _)) => Ok(Line(stream)),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

impl Socket for Line {
    async fn frame(&mut self) -> Frame {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Frame::Text(text.to_string()),
            Some(Ok(Message::Close(close))) => {
                let _ = self.0.flush().await;
                Frame::Closed {
                    code: close.as_ref().map(|close| CloseCode(close.code.into())),
                    reason: close.map(|close| close.reason.to_string()).unwrap_or_default(),
                }
            }
            Some(Ok(_)) => Frame::Other,
            Some(Err(error)) => Frame::Closed { code: None, reason: error.to_string() },
            None => Frame::Closed { code: None, reason: String::new() },
        }
    }

    async fn send(&mut self, text: &str) {
        let _ = timeout(Duration::from_secs(10), self.0.send(Message::text(text))).await;
    }

    async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.0.close(None)).await;
    }
}

/// Runs a device until it is no longer commanded, and returns what happened on it.
pub(crate) async fn run(
    world: Arc<World>,
    device: usize,
    user: Option<&'static str>,
    mut commands: mpsc::Receiver<Command>,
) -> Record {
    let mut record = Record::default();
    let mut inbox = Inbox::default();
    let mut connection = Connection::new(Dialer { world: Arc::clone(&world), device, user }, None);
    let now = || Now { ms: world.elapsed_ms() + 1, wall_ms: world.wall_ms() };
    inbox.apply(now(), inbox::Event::Began(user.map(ToOwned::to_owned)));
    loop {
        let wake = inbox.wake_at_ms().map(|at| Duration::from_millis(at.saturating_sub(now().ms)));
        tokio::select! {
            biased;
            event = connection.next() => heard(&mut record, &mut inbox, now(), event),
            command = commands.recv() => match command {
                Some(Command::Send { id, to }) => {
                    inbox.apply(now(), inbox::Event::Send { id, to, text: "hello".to_owned() });
                }
                Some(Command::ReadAll) => inbox.apply(now(), inbox::Event::ReadAll),
                None => break,
            },
            () = wait(wake) => inbox.apply(now(), inbox::Event::Tick),
        }
        for frame in inbox.take_frames() {
            connection.send(&frame.to_json()).await;
        }
        world.set_live(device, record.is_live);
    }
    record.unread = inbox.unread();
    record.unread_rows = inbox.rows().items().filter(|item| inbox.is_unread(item)).count();
    record.rows = inbox.rows().items().map(|item| item.id.clone()).collect();
    record
}

async fn wait(wake: Option<Duration>) {
    match wake {
        Some(wake) => sleep(wake).await,
        None => pin!(std::future::pending()).await,
    }
}

fn heard(record: &mut Record, inbox: &mut Inbox, now: Now, event: Event<String>) {
    tracing::debug!(now.ms, ?event);
    match event {
        Event::Received { event, .. } => match event {
            ClientEvent::Welcome(welcome) => {
                record.welcomes += 1;
                record.is_live = true;
                inbox.apply(
                    now,
                    inbox::Event::Welcomed {
                        resume: welcome.resume,
                        cursor: welcome.cursor,
                        user: welcome.user,
                        read: welcome.read,
                    },
                );
            }
            ClientEvent::Notification(delivery) => {
                record.shown.push(Shown {
                    id: delivery.notification.id.clone(),
                    from: delivery.notification.from.clone(),
                    audience: delivery.notification.to.to_string(),
                    cursor: delivery.cursor.parse().ok(),
                });
                inbox.apply(now, inbox::Event::Came(delivery));
            }
            ClientEvent::Gap { reason, audience } => {
                record.gaps_at_ms.push(now.ms);
                inbox.apply(now, inbox::Event::Gap { reason, audience });
            }
            ClientEvent::Error { detail, about, code } => {
                record.refused.push(format!("{code}: {detail}"));
                if let Some(id) = about {
                    inbox.apply(now, inbox::Event::Refused { id, why: detail });
                }
            }
            ClientEvent::Message(message) => match *message {
                ServerMessage::Status(StatusChange { id, status, .. }) => {
                    record.statuses.entry(id.clone()).or_default().push(status);
                    inbox.apply(now, inbox::Event::Status { id, status });
                }
                ServerMessage::Read(ReadPosition { read, .. }) => {
                    inbox.apply(now, inbox::Event::Read(read));
                }
                _ => {}
            },
            ClientEvent::Unreadable(text) => record.unreadable.push(text),
            ClientEvent::Repeated | ClientEvent::Goodbye(_) | ClientEvent::Nothing => {}
        },
        Event::Closed { code, .. } => {
            if code.is_some_and(|code| !code.resumes()) {
                record.stopped = code;
            }
            lost(record, inbox, now);
        }
        Event::Refused(_) | Event::Silent => lost(record, inbox, now),
        Event::Connecting | Event::Opened | Event::Alive => {}
    }
}

fn lost(record: &mut Record, inbox: &mut Inbox, now: Now) {
    record.is_live = false;
    inbox.apply(now, inbox::Event::Lost);
}
