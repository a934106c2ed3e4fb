//! Holds the page's state for the components: events are applied to the inbox at once, and the screen follows at most once a
//! frame, however fast they arrive.

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

/// Handles a report of the connection, with the messages that the page had sent before it was reloaded.
pub type Take = fn(Viewer, Report, &mut Option<Vec<Message>>);

/// The page's state; a handle that is copied freely.
#[derive(Clone, Copy)]
pub struct Viewer {
    /// The inbox.
    pub inbox: RwSignal<Inbox>,
    /// The read position.
    pub read_to: Memo<Option<Cursor>>,
    /// The phase of the connection.
    pub phase: RwSignal<Phase>,
    /// Whether the server offers the demo's sign-in.
    pub offered: RwSignal<bool>,
    /// The detail of the server's last refusal.
    pub refusal: RwSignal<Option<String>>,
    /// Why the user was signed out, unless the user requested it.
    pub ended: RwSignal<Option<String>>,
    /// The recipient of an answer that was started; empty for none.
    pub answer_to: RwSignal<String>,
    /// The time that the page shows.
    pub now: RwSignal<Now>,
    access: StoredValue<Access>,
    pub(crate) renewal: StoredValue<Option<TimeoutHandle>>,
    commands: StoredValue<Option<Sender<Command>>>,
    /// How often the page has restarted: reports of an earlier connection are dropped.
    era: StoredValue<u64>,
    painting: StoredValue<bool>,
    alarm: StoredValue<Option<(u64, TimeoutHandle)>>,
    take: Take,
}

impl Viewer {
    /// Creates a viewer whose connection reports to `take`; components find it in their context.
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

    /// Returns the viewer of the page of a component.
    pub fn here() -> Self {
        expect_context()
    }

    /// Restarts the page with its current credentials, and with the state that this tab has stored.
    pub fn begin(self) {
        let user = self.access().user().map(str::to_owned);
        let Place { since, sent, .. } = Place::kept(user.as_deref());
        // An anonymous reader does not wait for earlier notifications.
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

    /// The credentials of the page.
    pub fn access(self) -> Access {
        self.access.read_value().clone()
    }

    /// Sets the credentials of the page.
    pub fn become_known(self, access: Access) {
        access.keep();
        *self.access.write_value() = access;
    }

    /// Sends a command to the connection.
    pub fn command(self, command: Command) {
        // A full queue means that the driver does not run, and then one command more or less does not matter.
        drop(self.commands.write_value().as_mut().map(|commands| commands.try_send(command)));
    }

    /// Applies an event to the inbox, and sends the messages that follow from it.
    pub fn act(self, event: Event) {
        self.inbox.write_untracked().apply(now(), event);
        let frames = self.inbox.write_untracked().take_frames();
        for frame in frames {
            self.command(Command::Send(frame));
        }
        self.set_alarm();
        if document().hidden() {
            // Then there are no animation frames.
            title::show(&self.inbox.read_untracked());
        }
        if !std::mem::replace(&mut *self.painting.write_value(), true) {
            next_frame(move || {
                *self.painting.write_value() = false;
                self.update_times();
                self.inbox.notify();
                title::show(&self.inbox.read_untracked());
            });
        }
    }

    /// Sets the timer of the inbox, whether or not the page is visible.
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

    /// Updates the times that the page shows.
    pub fn update_times(self) {
        self.now.set(now());
    }
}
