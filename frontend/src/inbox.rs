//! The state of the page, as a pure reducer: events and the time go in; toasts, rows, bars and a notice come out. It uses no
//! browser, so it is tested natively.

mod apply;
mod catch_up;
mod item;
mod job;
mod race;
mod reading;
mod rows;
mod sent;
mod stack;
#[cfg(test)]
mod tests;

use carillon_protocol::http::JobState;
use carillon_protocol::{Acks, Audience, ClientMessage, Delivery, GapReason, JobStatus, Resume, Status};

pub use catch_up::{CATCH_UP_MAX_MS, CAUGHT_UP_AFTER_MS, CatchUp, NOTICE_MS, Notice};
pub use item::{Collapse, Item};
pub use job::{Job, queued};
pub use race::{QUIET_AFTER_MS, QUIET_AFTER_WINS, RACER_HUES, RACERS_MAX, Race, Standing};
pub use reading::{READ_AFTER_MS, READ_EVERY_MS, Reading};
pub use rows::{LIST_MAX_ROWS, Row, Rows};
pub use sent::{Message, SENT_MAX_MESSAGES, Sent, UNSENT_MAX_MESSAGES};
pub use stack::{Hold, JOB_LIFE_MS, LEAVE_MS, LIFE_MS, Stack, Toast, VISIBLE_MAX_TOASTS, WAITING_MAX_TOASTS};

use crate::clock::Now;

/// An event of an inbox.
#[derive(Clone, Debug)]
pub enum Event {
    /// The page restarts for this user, or for none.
    Began(Option<String>),
    /// The notifications from before the page was opened, oldest first.
    Filled(Past),
    /// A notification that was not seen before arrived.
    Came(Box<Delivery>),
    /// The connection is live.
    Welcomed {
        /// Whether all missed entries follow.
        resume: Resume,
        /// Where the stream begins.
        cursor: String,
        /// The user that the server reports.
        user: Option<String>,
        /// How far the user has read.
        read: Option<String>,
    },
    /// The connection was lost.
    Lost,
    /// Some notifications are missing for good.
    Gap {
        /// The reason.
        reason: GapReason,
        /// The audience; `None` is all of them.
        audience: Option<Audience>,
    },
    /// The user sends a message to another user.
    Send {
        /// Its new id.
        id: String,
        /// The user.
        to: String,
        /// The text.
        text: String,
    },
    /// The user retries a refused message.
    Retry(u64),
    /// The status of a message has risen.
    Status {
        /// The id of the message.
        id: String,
        /// The status.
        status: Status,
    },
    /// The server refused a message.
    Refused {
        /// The id of the message.
        id: String,
        /// The reason.
        why: String,
    },
    /// The user has read up to here, on this device or another.
    Read(String),
    /// Whether the list is visible.
    Visible(bool),
    /// The user marks all as read.
    ReadAll,
    /// The status of jobs, from a query.
    Jobs(Vec<JobState>),
    /// A job could not be started.
    JobRefused {
        /// The job.
        state: JobState,
        /// The reason.
        why: String,
    },
    /// The window has room for this many toasts.
    Places(usize),
    /// The toasts are held, or no longer.
    Held(Hold, bool),
    /// The user closes a toast.
    Closed(u64),
    /// The user closes the newest toast.
    Escaped,
    /// The user opens the waiting toasts in the list.
    More,
    /// Whether the user has scrolled down in the list.
    Away(bool),
    /// The user closes the notice.
    NoticeClosed,
    /// Time has passed.
    Tick,
}

/// The notifications from before the page was opened.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// The notifications, oldest first.
    pub items: Vec<Delivery>,
    /// The messages that this page sent before it was loaded anew, oldest first.
    pub sent: Vec<Message>,
    /// The cursor before them; `None` is the beginning of history.
    pub since: Option<String>,
    /// The cursor after them.
    pub next: String,
    /// Whether some are missing for good.
    pub gap: bool,
    /// How far the user has read.
    pub read: Option<String>,
}

/// The notifications that the page shows.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// The signed-in user.
    me: Option<String>,
    last_slot: u64,
    stack: Stack,
    rows: Rows,
    race: Race,
    catch_up: CatchUp,
    sent: Sent,
    reading: Reading,
    acks: Acks,
    /// Whether the connection is live.
    live: bool,
    /// The cursor before everything that the page shows, once there is one; without it the page shows all of history.
    began: Option<Option<String>>,
    /// Messages to the server.
    frames: Vec<ClientMessage>,
}

impl Inbox {
    /// The signed-in user.
    pub fn me(&self) -> Option<&str> {
        self.me.as_deref()
    }

    /// The toasts.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The list.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The messages that this page sent.
    pub fn sent(&self) -> &Sent {
        &self.sent
    }

    /// How many notifications each replica claimed.
    pub fn race(&self) -> &Race {
        &self.race
    }

    /// How far the list is read.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The notice for a returning reader.
    pub fn notice(&self) -> Option<Notice> {
        self.catch_up.notice()
    }

    /// How many in the list are unread.
    pub fn unread(&self) -> usize {
        self.rows.items().filter(|item| self.is_unread(item)).count()
    }

    /// Whether an item is unread.
    pub fn is_unread(&self, item: &Item) -> bool {
        item.cursor.as_ref().is_some_and(|cursor| self.reading.is_unread(cursor))
    }

    /// The cursor before everything that the page shows, for a page that is reloaded.
    pub fn since(&self) -> Option<String> {
        let forgotten = self.rows.forgotten().and_then(|item| item.cursor.as_ref());
        forgotten.map(ToString::to_string).or_else(|| self.began.clone().flatten())
    }

    /// Takes the messages to the server; none while there is no connection.
    pub fn take_frames(&mut self) -> Vec<ClientMessage> {
        std::mem::take(&mut self.frames)
    }

    /// When to apply [`Event::Tick`], if no other event comes.
    pub fn wake_at_ms(&self) -> Option<u64> {
        let acks = self.acks.wake_at_ms().filter(|_| self.live);
        let all = [
            self.stack.wake_at_ms(),
            self.rows.wake_at_ms(),
            self.catch_up.wake_at_ms(),
            self.reading.wake_at_ms(),
            acks,
        ];
        all.into_iter().flatten().min()
    }

    /// Applies an event at the time `now`.
    pub fn apply(&mut self, now: Now, event: Event) {
        match event {
            Event::Began(me) => {
                // Slots on the screen stay unique, and the window keeps its size.
                let (last_slot, visible) = (self.last_slot, self.reading.is_visible());
                let mut stack = Stack::default();
                stack.set_places(now.ms, self.stack.places());
                *self = Self { me, last_slot, stack, ..Self::default() };
                self.reading.set_visible(visible);
            }
            Event::Filled(past) => self.fill(now, past),
            Event::Came(delivery) => self.came(now, *delivery),
            Event::Welcomed { resume, cursor, user, read } => {
                self.me = self.me.take().or(user);
                self.welcomed(now, resume, cursor, read);
            }
            Event::Lost => self.lost(),
            Event::Gap { reason, audience } => {
                self.catch_up.gap(reason);
                self.push_gap(reason, audience);
            }
            Event::Send { id, to, text } => self.send(now, id, to, text),
            Event::Retry(slot) => {
                let message = self.sent.retry(slot);
                self.send_frame(message.as_deref().and_then(Sent::frame));
                self.show_sent(message);
            }
            Event::Status { id, status } => {
                let message = self.sent.advance(&id, status);
                self.show_sent(message);
            }
            Event::Refused { id, why } => {
                let message = self.sent.fail(&id, &why);
                self.show_sent(message);
            }
            Event::Read(cursor) => self.receive_read(&cursor),
            Event::Visible(visible) => self.reading.set_visible(visible),
            Event::ReadAll => {
                if self.reading.mark(now.ms) {
                    self.send_read();
                }
            }
            Event::Jobs(states) => {
                for state in states {
                    self.show_job(now, Item::of_job(now, state));
                }
            }
            Event::JobRefused { mut state, why } => {
                state.status = JobStatus::Failed;
                let mut item = Item::of_job(now, state);
                item.body = why;
                self.show_job(now, item);
            }
            Event::Places(places) => self.stack.set_places(now.ms, places),
            Event::Held(cause, on) => self.stack.hold(now.ms, cause, on),
            Event::Closed(slot) => self.stack.close(now.ms, slot),
            Event::Escaped => {
                if let Some(slot) = self.stack.newest() {
                    self.stack.close(now.ms, slot);
                }
            }
            Event::More => {
                self.stack.forget_waiting();
                self.rows.set_away(false);
            }
            Event::Away(away) => self.rows.set_away(away),
            Event::NoticeClosed => self.catch_up.close(),
            Event::Tick => {}
        }
        self.settle(now);
    }
}
