//! Holds the page's state and hands it to the components: events go into the inbox at once, and the
//! screen follows at most once a frame, however fast they come.

use std::time::Duration;

use carillon_protocol::received::{ReadPosition, StatusChange};
use carillon_protocol::{CloseCode, Cursor, Heard, Phase, Resume, ServerMessage, Status, Welcome};
use futures_channel::mpsc::{Sender, channel};
use leptos::leptos_dom::helpers::TimeoutHandle;
use leptos::prelude::*;

use crate::access::Access;
use crate::clock::{Now, now};
use crate::connection::{COMMANDS_MAX, Command, Report, Start, drive};
use crate::http::get;
use crate::inbox::{Event, Inbox, Message, Past};
use crate::live::{at_window, beside, later, next_frame};
use crate::place::Place;
use crate::{account, job, looking};

/// How often the times on the page are told anew.
const TELL_TIME_EVERY: Duration = Duration::from_secs(1);
/// Of this many of the messages that a page sent before it was loaded anew it asks how far they have come.
const ASKED_MAX_MESSAGES: usize = 20;

/// The page's state; a handle that is copied freely.
#[derive(Clone, Copy)]
pub struct Viewer {
    /// What came.
    pub inbox: RwSignal<Inbox>,
    /// Up to where it is read.
    pub read_to: Memo<Option<Cursor>>,
    /// Where the connection stands.
    pub phase: RwSignal<Phase>,
    /// Whether anybody may sign in here.
    pub offered: RwSignal<bool>,
    /// What the server said when it last refused something.
    pub refusal: RwSignal<Option<String>>,
    /// Why the user was signed out, where that was not asked for.
    pub ended: RwSignal<Option<String>>,
    /// Whom somebody begins to answer; empty for nobody.
    pub answer_to: RwSignal<String>,
    /// The moment that the page tells.
    pub now: RwSignal<Now>,
    access: StoredValue<Access>,
    pub(crate) renewal: StoredValue<Option<TimeoutHandle>>,
    commands: StoredValue<Option<Sender<Command>>>,
    /// How often the page has begun anew: what an earlier connection still says is not for this one.
    era: StoredValue<u64>,
    painting: StoredValue<bool>,
    alarm: StoredValue<Option<(u64, TimeoutHandle)>>,
}

impl Viewer {
    /// Starts the connection and listens to the page; components find it in their context.
    pub fn start() -> Self {
        let inbox = RwSignal::<Inbox>::default();
        let viewer = Self {
            inbox,
            read_to: Memo::new(move |_| inbox.read().reading().position().cloned()),
            phase: RwSignal::new(Phase::Connecting { since_ms: 0 }),
            offered: RwSignal::new(false),
            refusal: RwSignal::default(),
            ended: RwSignal::default(),
            answer_to: RwSignal::default(),
            now: RwSignal::new(now()),
            access: StoredValue::new(Access::kept()),
            renewal: StoredValue::new(None),
            commands: StoredValue::new(None),
            era: StoredValue::new(0),
            painting: StoredValue::new(false),
            alarm: StoredValue::new(None),
        };
        provide_context(viewer);
        viewer.listen();
        viewer.begin();
        viewer
    }

    /// The viewer of the page that a component is on.
    pub fn here() -> Self {
        expect_context()
    }

    /// Begins anew as whoever the page is now, with what this tab has kept of it.
    pub fn begin(self) {
        let user = self.access().user().map(str::to_owned);
        let Place { since, sent, .. } = Place::kept(user.as_deref());
        // Nobody waits for what an unknown reader may have missed.
        let start = if since.is_some() || user.is_some() { Start::Before(since) } else { Start::Now };
        self.act(Event::Began(user));
        account::watch(self);
        let (commands, orders) = channel(COMMANDS_MAX);
        *self.commands.write_value() = Some(commands);
        let era = *self.era.read_value() + 1;
        *self.era.write_value() = era;
        let mut sent = Some(sent);
        let report = move |report| {
            if *self.era.read_value() == era {
                self.take(report, &mut sent);
            }
        };
        beside(drive(orders, start, move || self.access(), report));
    }

    /// What the page shows the server.
    pub fn access(self) -> Access {
        self.access.read_value().clone()
    }

    /// From now on the page shows the server this.
    pub fn become_known(self, access: Access) {
        access.keep();
        *self.access.write_value() = access;
    }

    /// Tells the connection something.
    pub fn command(self, command: Command) {
        // A driver that takes no commands has more to worry about than one that is lost.
        drop(self.commands.write_value().as_mut().map(|commands| commands.try_send(command)));
    }

    /// Puts an event into the inbox, and tells the server what follows from it.
    pub fn act(self, event: Event) {
        self.inbox.write_untracked().apply(now(), event);
        let frames = self.inbox.write_untracked().take_frames();
        for frame in frames {
            self.command(Command::Say(frame));
        }
        self.set_alarm();
        if document().hidden() {
            // There are no frames then.
            looking::tell_in_title(self);
        }
        if !std::mem::replace(&mut *self.painting.write_value(), true) {
            next_frame(move || {
                *self.painting.write_value() = false;
                self.tell_time();
                self.inbox.notify();
                looking::tell_in_title(self);
            });
        }
    }

    /// Wakes the inbox when it next has something to do, on screen or not.
    fn set_alarm(self) {
        let wake_at_ms = self.inbox.read_untracked().wake_at_ms();
        let mut alarm = self.alarm.write_value();
        if wake_at_ms == alarm.as_ref().map(|(at_ms, _)| *at_ms) {
            return;
        }
        if let Some((_, handle)) = alarm.take() {
            handle.clear();
        }
        let Some(at_ms) = wake_at_ms else { return };
        let wait = Duration::from_millis(at_ms.saturating_sub(now().ms));
        let ring = move || {
            *self.alarm.write_value() = None;
            self.act(Event::Tick);
        };
        *alarm = later(ring, wait).map(|handle| (at_ms, handle));
    }

    fn tell_time(self) {
        self.now.set(now());
    }

    fn take(self, report: Report, sent: &mut Option<Vec<Message>>) {
        match report {
            Report::Phase(phase) => {
                self.tell_time();
                if matches!(self.phase.get_untracked(), Phase::Live { .. }) {
                    self.act(Event::Lost);
                }
                self.phase.set(phase);
            }
            Report::Heard(heard) => self.hear(heard),
            Report::Filled(past) => {
                let sent = sent.take().unwrap_or_default();
                let under_way = sent.iter().rev().filter(|message| is_under_way(message));
                let asked: Vec<_> = under_way.take(ASKED_MAX_MESSAGES).cloned().collect();
                self.act(Event::Filled(Past { sent, ..past }));
                beside(job::restore(self));
                beside(self.ask(asked));
            }
            Report::NotFilled(fault) if fault.status == 401 => beside(account::check(self)),
            Report::NotFilled(_) => {}
            Report::Closed { code, welcomed } => self.closed(code, welcomed),
        }
    }

    fn hear(self, heard: Heard) {
        match heard {
            Heard::Notification(delivery) => self.act(Event::Came(delivery)),
            Heard::Welcome(welcome) => {
                self.refusal.set(None);
                let Welcome { resume, cursor, user, read, session, .. } = welcome;
                beside(account::ask(self));
                if resume == Resume::None {
                    beside(job::restore(self));
                }
                self.act(Event::Welcomed { resume, cursor, user, read });
                if let Some(session) = session {
                    // The server may have renewed it.
                    self.become_known(Access { session: Some(session), ..self.access() });
                }
            }
            Heard::Gap { reason, audience } => self.act(Event::Gap { reason, audience }),
            Heard::Error { detail, about: Some(id), .. } => self.act(Event::Refused { id, why: detail }),
            Heard::Error { detail, .. } => self.refusal.set(Some(detail)),
            Heard::Message(message) => match *message {
                ServerMessage::Status(StatusChange { id, status, .. }) => {
                    self.act(Event::Status { id, status })
                }
                ServerMessage::Read(ReadPosition { read, .. }) => self.act(Event::Read(read)),
                _ => {}
            },
            Heard::Repeated | Heard::Goodbye(_) | Heard::Nothing | Heard::Unreadable(_) => {}
        }
    }

    fn closed(self, code: Option<CloseCode>, welcomed: bool) {
        let access = self.access();
        match code {
            Some(CloseCode::TOKEN_EXPIRED) => beside(account::renew(self)),
            Some(CloseCode::REFUSED) if access.pass.is_some() => {
                account::sign_out(self, Some("Signed out: the server has withdrawn this sign-in".to_owned()));
            }
            // Whether it was for want of a valid token is not said to a browser's script.
            _ if !welcomed && access.is_known() => beside(account::check(self)),
            _ => {}
        }
    }

    /// Asks how far messages have come whose statuses this page did not hear.
    async fn ask(self, messages: Vec<Message>) {
        let access = self.access();
        for Message { id, .. } in messages {
            let path = format!("/api/notifications/{id}");
            let told = get(&path, &access).await.ok().and_then(|fields| fields.text("status"));
            if let Some(status) = told.and_then(|status| status.parse().ok()) {
                self.act(Event::Status { id, status });
            }
        }
    }

    fn listen(self) {
        at_window("online", move |_| self.command(Command::Online));
        at_window("offline", move |_| self.command(Command::Offline));
        looking::watch(self);
        set_interval(
            move || {
                if !document().hidden() {
                    self.tell_time();
                }
            },
            TELL_TIME_EVERY,
        );
    }
}

/// Whether a message has left this page and not come to its end.
fn is_under_way(message: &Message) -> bool {
    message.status.is_some_and(|status| status < Status::Read)
}
