//! Holds the page's state and hands it to the components: events go into the inbox at once, and the
//! screen follows at most once a frame, however fast they come.

use std::time::Duration;

use carillon_protocol::{Heard, Phase};
use futures_channel::mpsc::{Sender, channel};
use leptos::ev;
use leptos::leptos_dom::helpers::TimeoutHandle;
use leptos::prelude::*;

use crate::clock::{Now, now};
use crate::connection::{COMMANDS_MAX, Command, Report, drive};
use crate::inbox::{Event, Inbox};

/// How often the times on the page are told anew.
const TELL_TIME_EVERY: Duration = Duration::from_secs(1);

/// The page's state; a handle that is copied freely.
#[derive(Clone, Copy)]
pub struct Viewer {
    /// What came.
    pub inbox: RwSignal<Inbox>,
    /// Where the connection stands.
    pub phase: RwSignal<Phase>,
    /// What the server said when it last refused something.
    pub refusal: RwSignal<Option<String>>,
    /// The moment that the page tells.
    pub now: RwSignal<Now>,
    commands: StoredValue<Sender<Command>>,
    painting: StoredValue<bool>,
    alarm: StoredValue<Option<(u64, TimeoutHandle)>>,
}

impl Viewer {
    /// Starts the connection and listens to the page; components find it in their context.
    pub fn start() -> Self {
        let (commands, orders) = channel(COMMANDS_MAX);
        let viewer = Self {
            inbox: RwSignal::default(),
            phase: RwSignal::new(Phase::Connecting { since_ms: 0 }),
            refusal: RwSignal::default(),
            now: RwSignal::new(now()),
            commands: StoredValue::new(commands),
            painting: StoredValue::new(false),
            alarm: StoredValue::new(None),
        };
        provide_context(viewer);
        viewer.listen();
        leptos::task::spawn_local(drive(orders, move |report| viewer.take(report)));
        viewer
    }

    /// The viewer of the page that a component is on.
    pub fn here() -> Self {
        expect_context()
    }

    /// Tells the connection something.
    pub fn command(self, command: Command) {
        // A driver that takes no commands has more to worry about than one that is lost.
        self.commands.update_value(|commands| drop(commands.try_send(command)));
    }

    /// Puts an event into the inbox.
    pub fn act(self, event: Event) {
        self.inbox.update_untracked(|inbox| inbox.apply(now(), event));
        self.set_alarm();
        if !self.painting.get_value() {
            self.painting.set_value(true);
            request_animation_frame(move || {
                self.painting.set_value(false);
                self.tell_time();
                self.inbox.notify();
            });
        }
    }

    /// Wakes the inbox when it next has something to do, on screen or not.
    fn set_alarm(self) {
        let wake_at_ms = self.inbox.with_untracked(Inbox::wake_at_ms);
        let set = self.alarm.with_value(|alarm| alarm.as_ref().map(|(at_ms, _)| *at_ms));
        if wake_at_ms == set {
            return;
        }
        if let Some((_, handle)) = self.alarm.try_update_value(Option::take).flatten() {
            handle.clear();
        }
        let Some(at_ms) = wake_at_ms else { return };
        let wait = Duration::from_millis(at_ms.saturating_sub(now().ms));
        let ring = move || {
            self.alarm.set_value(None);
            self.act(Event::Tick);
        };
        if let Ok(handle) = set_timeout_with_handle(ring, wait) {
            self.alarm.set_value(Some((at_ms, handle)));
        }
    }

    fn tell_time(self) {
        self.now.set(now());
    }

    fn take(self, report: Report) {
        match report {
            Report::Phase(phase) => {
                self.tell_time();
                self.phase.set(phase);
            }
            Report::Heard(Heard::Notification(delivery)) => self.act(Event::Came(delivery)),
            Report::Heard(Heard::Welcome(welcome)) => {
                self.refusal.set(None);
                self.act(Event::Welcomed(welcome.resume));
            }
            Report::Heard(Heard::Gap(reason)) => self.act(Event::Gap(reason)),
            Report::Heard(Heard::Error { detail, .. }) => self.refusal.set(Some(detail)),
            Report::Heard(
                Heard::Repeated
                | Heard::Goodbye(_)
                | Heard::Nothing
                | Heard::Message(_)
                | Heard::Unreadable(_),
            ) => {}
        }
    }

    fn listen(self) {
        let _ = window_event_listener(ev::online, move |_| self.command(Command::Online));
        let _ = window_event_listener(ev::offline, move |_| self.command(Command::Offline));
        let _ = window_event_listener(ev::visibilitychange, move |_| {
            if !document().hidden() {
                self.tell_time();
                self.command(Command::Seen);
            }
        });
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
