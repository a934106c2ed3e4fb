//! Holds the page's state and hands it to the components: events go into the inbox at once, and the
//! screen follows at most once a frame, however fast they come.

use std::time::Duration;

use carillon_protocol::{Cursor, Phase};
use futures_channel::mpsc::{Sender, channel};
use leptos::leptos_dom::helpers::TimeoutHandle;
use leptos::prelude::*;

use crate::access::Access;
use crate::clock::{Now, now};
use crate::connection::{COMMANDS_MAX, Command, Report, Start, drive};
use crate::inbox::{Event, Inbox, Message};
use crate::live::{beside, later, next_frame};
use crate::place::Place;
use crate::title;

/// Takes a report of the connection; it has the messages that the page had sent before it was loaded anew.
pub type Take = fn(Viewer, Report, &mut Option<Vec<Message>>);

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
    take: Take,
}

impl Viewer {
    /// A viewer whose connection reports to `take`; components find it in their context.
    pub fn new(take: Take) -> Self {
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
            take,
        };
        provide_context(viewer);
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
        let (commands, orders) = channel(COMMANDS_MAX);
        *self.commands.write_value() = Some(commands);
        let era = *self.era.read_value() + 1;
        *self.era.write_value() = era;
        let mut sent = Some(sent);
        let report = move |report| {
            if *self.era.read_value() == era {
                (self.take)(self, report, &mut sent);
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
            title::show(&self.inbox.read_untracked());
        }
        if !std::mem::replace(&mut *self.painting.write_value(), true) {
            next_frame(move || {
                *self.painting.write_value() = false;
                self.tell_time();
                self.inbox.notify();
                title::show(&self.inbox.read_untracked());
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

    /// Shows times as of now.
    pub fn tell_time(self) {
        self.now.set(now());
    }
}
