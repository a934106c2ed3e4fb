//! The state machine of a reader's connection: when to open a socket, when to drop it, from which cursor to resume, and
//! which frames are new. It holds no socket: a driver opens and closes one when [`Client::step`] requests it, and reports
//! the result.

use std::collections::BTreeSet;

use crate::command::{Subscribe, Unsubscribe};
use crate::frame::{Delivered, Gap, Goodbye, Heartbeat, Refused};
use crate::limits::{BACKOFF_RESET_AFTER_MS, CONNECT_TIMEOUT_MS, SEEN_MAX_IDS, SILENCE_MS};
use crate::{
    Audience, Backoff, ClientMessage, CloseCode, GapReason, Named, Notification, Resume, Seen, ServerMessage,
    Welcome,
};

/// The state of the connection. Times are milliseconds of the driver's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A socket is being opened, or is open and was not welcomed yet.
    Connecting {
        /// Since when.
        since_ms: u64,
    },
    /// The connection was welcomed.
    Live {
        /// Since when.
        since_ms: u64,
        /// The replica that holds the connection.
        replica: String,
    },
    /// The client waits before it reconnects.
    Waiting {
        /// Until when.
        until_ms: u64,
    },
    /// The device reports that it has no network.
    Offline,
    /// The server closed for good.
    Stopped {
        /// Its close code.
        code: CloseCode,
    },
}

/// The next action of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open a socket with the cursor as `since` and the topics; drop an older one.
    Open {
        /// The last cursor that was seen.
        since: Option<String>,
        /// The topics to subscribe to.
        topics: Vec<String>,
    },
    /// Drop the socket, if there is one. Frames that it still brings are ignored.
    Drop,
    /// Call [`Client::step`] again at this time, or after the next event.
    Wait {
        /// When; `None` is never.
        until_ms: Option<u64>,
    },
}

/// A notification that was not seen before.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The notification.
    pub notification: Notification,
    /// The replica that claimed it.
    pub claimed_by: String,
    /// The cursor after it.
    pub cursor: String,
}

impl Delivery {
    /// Returns what to acknowledge once it is on the screen: a message from one user to another. Other notifications are not
    /// acknowledged.
    #[must_use]
    pub fn acknowledgement(&self) -> Option<Named> {
        let Notification { id, from, to, .. } = &self.notification;
        let from = from.as_ref().filter(|_| matches!(to, Audience::User(_)))?;
        Some(Named::Sent { from: from.clone(), id: id.clone() })
    }
}

/// The event that a frame brings.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// The connection is live.
    Welcome(Welcome),
    /// A new notification.
    Notification(Box<Delivery>),
    /// A notification that was seen before, which is not shown again.
    Repeated,
    /// Entries before the next frames are missing for good.
    Gap {
        /// Why.
        reason: GapReason,
        /// The audience; `None` is all of them.
        audience: Option<Audience>,
    },
    /// The server will close the connection and requests this pause before a reconnect, in milliseconds.
    Goodbye(u64),
    /// The server refused a message.
    Error {
        /// The error code, for programs.
        code: String,
        /// The detail, for people.
        detail: String,
        /// The id or topic that the refused message named.
        about: Option<String>,
    },
    /// A frame that this core does not handle itself: `state`, `raw`, `status`, `read` or `presence`.
    Message(Box<ServerMessage>),
    /// A heartbeat, or an unknown type.
    Nothing,
    /// An unreadable frame; the connection is kept.
    Unreadable(String),
}

/// The client core.
#[derive(Debug)]
pub struct Client {
    phase: Phase,
    /// Whether the driver has a socket, or was requested to open one.
    socket: bool,
    cursor: Option<String>,
    topics: BTreeSet<String>,
    seen: Seen,
    backoff: Backoff,
    heard_ms: u64,
    goodbye_ms: Option<u64>,
}

impl Client {
    /// Creates a client that connects at once, from `since` if there is one.
    #[must_use]
    pub fn new(since: Option<String>) -> Self {
        Self {
            phase: Phase::Waiting { until_ms: 0 },
            socket: false,
            cursor: since,
            topics: BTreeSet::new(),
            seen: Seen::new(SEEN_MAX_IDS),
            backoff: Backoff::default(),
            heard_ms: 0,
            goodbye_ms: None,
        }
    }

    /// Subscribes to a topic. On a live connection the driver sends the returned message; later connections name the topic
    /// when they open, so that no entry is missed between two connections.
    pub fn subscribe(&mut self, topic: &str) -> Option<ClientMessage> {
        let is_new = self.topics.insert(topic.to_owned());
        let live = is_new && matches!(self.phase, Phase::Live { .. });
        live.then(|| ClientMessage::Subscribe(Subscribe { topic: topic.to_owned(), since: None }))
    }

    /// Unsubscribes from a topic. On a live connection the driver sends the returned message.
    pub fn unsubscribe(&mut self, topic: &str) -> Option<ClientMessage> {
        let was_there = self.topics.remove(topic);
        let live = was_there && matches!(self.phase, Phase::Live { .. });
        live.then(|| ClientMessage::Unsubscribe(Unsubscribe { topic: topic.to_owned() }))
    }

    /// Returns the state of the connection.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Returns the last cursor that was seen, to resume from.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Returns the number of failed attempts in a row.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.backoff.attempt()
    }

    /// Returns the next action at `now_ms`. Call it after every event and at the returned time, until it returns
    /// [`Step::Wait`]. `random` is drawn evenly from 0 to 1.
    pub fn step(&mut self, now_ms: u64, random: f64) -> Step {
        match self.phase {
            Phase::Connecting { since_ms } => self.expire(since_ms + CONNECT_TIMEOUT_MS, now_ms, random),
            Phase::Live { .. } => self.expire(self.heard_ms + SILENCE_MS, now_ms, random),
            Phase::Waiting { until_ms } if now_ms >= until_ms => {
                self.phase = Phase::Connecting { since_ms: now_ms };
                self.socket = true;
                Step::Open { since: self.cursor.clone(), topics: self.topics.iter().cloned().collect() }
            }
            Phase::Waiting { until_ms } => self.idle(Some(until_ms)),
            Phase::Offline | Phase::Stopped { .. } => self.idle(None),
        }
    }

    fn idle(&mut self, until_ms: Option<u64>) -> Step {
        if std::mem::take(&mut self.socket) { Step::Drop } else { Step::Wait { until_ms } }
    }

    fn expire(&mut self, at_ms: u64, now_ms: u64, random: f64) -> Step {
        if now_ms < at_ms {
            return Step::Wait { until_ms: Some(at_ms) };
        }
        self.fail(now_ms, random);
        self.step(now_ms, random)
    }

    fn fail(&mut self, now_ms: u64, random: f64) {
        if let Phase::Live { since_ms, .. } = self.phase
            && now_ms >= since_ms + BACKOFF_RESET_AFTER_MS
        {
            self.backoff.reset();
        }
        let wait_ms = self.goodbye_ms.take().unwrap_or_else(|| self.backoff.next_ms(random));
        self.phase = Phase::Waiting { until_ms: now_ms + wait_ms };
    }

    /// Receives a text frame.
    pub fn text(&mut self, now_ms: u64, text: &str) -> ClientEvent {
        self.heard_ms = now_ms;
        let message = match ServerMessage::parse(text) {
            Ok(message) => message,
            Err(error) => return ClientEvent::Unreadable(error.to_string()),
        };
        match message {
            ServerMessage::Welcome(welcome) => {
                self.phase = Phase::Live { since_ms: now_ms, replica: welcome.replica.clone() };
                self.goodbye_ms = None;
                // After a gap, the remaining older entries are still to come, and the `gap` frame has the cursor before
                // them.
                if self.cursor.is_none() || welcome.resume == Resume::None {
                    self.cursor = Some(welcome.cursor.clone());
                }
                ClientEvent::Welcome(welcome)
            }
            ServerMessage::Notification(Delivered { cursor, claimed_by, notification }) => {
                self.cursor = Some(cursor.clone());
                match serde_json::from_str::<Notification>(notification.get()) {
                    Err(error) => ClientEvent::Unreadable(error.to_string()),
                    Ok(notification) if !self.seen.insert(&seen_key(&notification)) => ClientEvent::Repeated,
                    Ok(notification) => {
                        ClientEvent::Notification(Box::new(Delivery { notification, claimed_by, cursor }))
                    }
                }
            }
            ServerMessage::Gap(Gap { cursor, reason, audience }) => {
                self.cursor = Some(cursor);
                ClientEvent::Gap { reason, audience }
            }
            ServerMessage::Heartbeat(Heartbeat { cursor }) => {
                self.cursor = Some(cursor);
                ClientEvent::Nothing
            }
            ServerMessage::Goodbye(Goodbye { reconnect_in_ms }) => {
                self.goodbye_ms = Some(reconnect_in_ms);
                ClientEvent::Goodbye(reconnect_in_ms)
            }
            ServerMessage::Error(Refused { code, detail, about }) => {
                ClientEvent::Error { code, detail, about }
            }
            ServerMessage::State(_)
            | ServerMessage::Raw(_)
            | ServerMessage::Status(_)
            | ServerMessage::Read(_)
            | ServerMessage::Presence(_) => {
                if let Some(cursor) = message.cursor() {
                    self.cursor = Some(cursor.to_owned());
                }
                ClientEvent::Message(Box::new(message))
            }
            ServerMessage::Unknown => ClientEvent::Nothing,
        }
    }

    /// Receives a frame that is not a text frame, like a ping.
    pub fn alive(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
    }

    /// Records that the socket closed, or could not be opened.
    pub fn closed(&mut self, now_ms: u64, code: Option<CloseCode>, random: f64) {
        self.socket = false;
        match (&self.phase, code) {
            (Phase::Connecting { .. } | Phase::Live { .. }, Some(code)) if !code.resumes() => {
                self.phase = Phase::Stopped { code };
            }
            (Phase::Connecting { .. } | Phase::Live { .. }, _) => self.fail(now_ms, random),
            _ => {}
        }
    }

    /// Records that the device lost its network.
    pub fn offline(&mut self) {
        if !matches!(self.phase, Phase::Stopped { .. }) {
            self.phase = Phase::Offline;
        }
    }

    /// Records that the device has a network again.
    pub fn online(&mut self, now_ms: u64) {
        if self.phase == Phase::Offline {
            self.backoff.reset();
            self.phase = Phase::Waiting { until_ms: now_ms };
        }
    }

    /// Connects at once, on the request of a person.
    pub fn connect_now(&mut self, now_ms: u64) {
        if !matches!(self.phase, Phase::Connecting { .. } | Phase::Live { .. }) {
            self.phase = Phase::Waiting { until_ms: now_ms };
        }
    }
}

/// Ids are unique for each sender only.
fn seen_key(notification: &Notification) -> String {
    format!("{}\n{}", notification.from.as_deref().unwrap_or_default(), notification.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELCOME: &str = r#"{"type":"welcome","connection":"c","replica":"bff-2","user":null,"session":null,"cursor":"e.5-0","resume":"none","heartbeat_ms":25000}"#;

    fn notification(cursor: &str, id: &str) -> String {
        format!(
            r#"{{"type":"notification","cursor":"{cursor}","claimed_by":"bff-1","notification":{{"id":"{id}","body":"b"}}}}"#
        )
    }

    fn live(now_ms: u64) -> Client {
        let mut client = Client::new(None);
        assert_eq!(client.step(now_ms, 0.5), Step::Open { since: None, topics: vec![] });
        assert!(matches!(client.text(now_ms, WELCOME), ClientEvent::Welcome(_)));
        client
    }

    #[test]
    fn connects_at_once_and_resumes_from_the_last_cursor() {
        let mut client = live(0);
        assert_eq!(client.phase(), &Phase::Live { since_ms: 0, replica: "bff-2".into() });
        assert!(matches!(client.text(1, &notification("e.6-0", "a")), ClientEvent::Notification(_)));
        client.closed(10, None, 0.5);
        assert_eq!(client.phase(), &Phase::Waiting { until_ms: 260 });
        assert_eq!(client.step(10, 0.5), Step::Wait { until_ms: Some(260) });
        assert_eq!(client.step(260, 0.5), Step::Open { since: Some("e.6-0".into()), topics: vec![] });
    }

    #[test]
    fn topics_are_named_by_every_connection_and_subscribed_on_a_live_one() {
        let mut client = live(0);
        let sent = |message: Option<ClientMessage>| message.map(|message| message.to_json());
        assert_eq!(sent(client.subscribe("a")).as_deref(), Some(r#"{"type":"subscribe","topic":"a"}"#));
        assert_eq!(sent(client.subscribe("a")), None, "it has it");
        client.closed(10, None, 0.0);
        assert_eq!(sent(client.subscribe("b")), None, "the next connection names it");
        client.unsubscribe("x");
        let open = Step::Open { since: Some("e.5-0".into()), topics: vec!["a".into(), "b".into()] };
        assert_eq!(client.step(10, 0.0), open);
        client.text(11, &WELCOME.replace("none", "complete"));
        assert_eq!(sent(client.unsubscribe("a")).as_deref(), Some(r#"{"type":"unsubscribe","topic":"a"}"#));
    }

    #[test]
    fn a_reader_without_notifications_resumes_from_the_welcome_and_heartbeats() {
        let mut client = live(0);
        assert_eq!(client.cursor(), Some("e.5-0"));
        client.text(1, r#"{"type":"heartbeat","cursor":"e.9-0"}"#);
        assert_eq!(client.cursor(), Some("e.9-0"));
        client.text(2, r#"{"type":"gap","cursor":"f.1-0","reason":"epoch"}"#);
        assert_eq!(client.cursor(), Some("f.1-0"));
    }

    #[test]
    fn a_welcome_that_resumes_does_not_move_the_cursor() {
        let mut client = live(0);
        client.text(1, &notification("e.6-0", "a"));
        for resume in ["complete", "gap"] {
            client.text(2, &WELCOME.replace("none", resume));
            assert_eq!(client.cursor(), Some("e.6-0"), "{resume}");
        }
        client.text(3, WELCOME);
        assert_eq!(client.cursor(), Some("e.5-0"), "a server that cannot resume sends its own cursor");
    }

    #[test]
    fn the_same_id_is_shown_once_for_each_sender() {
        let mut client = live(0);
        assert!(matches!(client.text(1, &notification("e.6-0", "a")), ClientEvent::Notification(_)));
        assert!(matches!(client.text(1, &notification("e.7-0", "a")), ClientEvent::Repeated));
        assert_eq!(client.cursor(), Some("e.7-0"), "a repeated one moves the cursor all the same");
        let other = r#"{"type":"notification","cursor":"e.8-0","claimed_by":"x","notification":{"id":"a","from":"f","body":"b"}}"#;
        assert!(matches!(client.text(1, other), ClientEvent::Notification(_)));
    }

    #[test]
    fn a_silent_or_unwelcomed_connection_is_dropped() {
        let mut client = live(0);
        assert_eq!(client.step(1_000, 0.5), Step::Wait { until_ms: Some(60_000) });
        client.alive(30_000);
        assert_eq!(client.step(60_000, 0.5), Step::Wait { until_ms: Some(90_000) });
        assert_eq!(client.step(90_000, 0.5), Step::Drop);
        assert_eq!(client.step(90_000, 0.5), Step::Wait { until_ms: Some(90_250) });
        assert!(matches!(client.step(90_250, 0.5), Step::Open { .. }));
        assert_eq!(client.step(100_250, 0.5), Step::Drop, "ten seconds without a welcome");
    }

    #[test]
    fn a_close_code_of_4500_stops_until_a_person_reconnects() {
        let mut client = live(0);
        client.closed(1, Some(CloseCode::BAD_MESSAGE), 0.5);
        assert_eq!(client.step(1_000_000, 0.5), Step::Wait { until_ms: None });
        client.connect_now(1_000_000);
        assert!(matches!(client.step(1_000_000, 0.5), Step::Open { .. }));
    }

    #[test]
    fn a_goodbye_sets_the_pause() {
        let mut client = live(0);
        client.text(1, r#"{"type":"goodbye","reconnect_in_ms":40}"#);
        client.closed(10, Some(CloseCode::DRAIN), 1.0);
        assert_eq!(client.phase(), &Phase::Waiting { until_ms: 50 });
        client.step(50, 1.0);
        client.closed(60, None, 1.0);
        assert_eq!(client.phase(), &Phase::Waiting { until_ms: 560 }, "the next failure backs off as usual");
    }

    #[test]
    fn the_back_off_resets_after_a_while_of_being_live() {
        let mut client = live(0);
        client.closed(10, None, 1.0);
        client.step(510, 1.0);
        client.text(510, WELCOME);
        client.closed(520, None, 1.0);
        assert_eq!(client.phase(), &Phase::Waiting { until_ms: 1_520 });
        client.step(1_520, 1.0);
        client.text(1_520, WELCOME);
        client.closed(6_520, None, 1.0);
        assert_eq!(client.phase(), &Phase::Waiting { until_ms: 7_020 });
    }

    #[test]
    fn offline_drops_the_socket_and_waits_for_the_network() {
        let mut client = live(0);
        client.offline();
        assert_eq!(client.step(1, 0.5), Step::Drop);
        client.closed(2, None, 0.5);
        assert_eq!(client.step(2, 0.5), Step::Wait { until_ms: None });
        client.online(9);
        assert!(matches!(client.step(9, 0.5), Step::Open { since: Some(_), .. }));
    }

    #[test]
    fn unknown_frames_are_ignored_and_broken_ones_reported() {
        let mut client = live(0);
        assert!(matches!(client.text(1, r#"{"type":"hologram","x":1}"#), ClientEvent::Nothing));
        assert!(matches!(client.text(1, "nonsense"), ClientEvent::Unreadable(_)));
        assert!(matches!(client.text(1, r#"{"type":"gap"}"#), ClientEvent::Unreadable(_)));
        assert!(matches!(client.phase(), Phase::Live { .. }));
    }
}
