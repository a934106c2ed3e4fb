//! What the page knows and shows, as a pure reducer: events and the time go in, toasts, rows, bars
//! and a notice come out. It touches no browser, so it is tested natively.

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

/// What happens to an inbox.
#[derive(Clone, Debug)]
pub enum Event {
    /// From now on the page is this user's, or nobody's: it begins anew.
    Began(Option<String>),
    /// What came before the page was opened, oldest first.
    Filled(Past),
    /// A notification that was not seen before.
    Came(Box<Delivery>),
    /// The connection is live.
    Welcomed {
        /// Whether everything that was missed follows.
        resume: Resume,
        /// Where the stream begins.
        cursor: String,
        /// Who is signed in, by whatever the server goes by.
        user: Option<String>,
        /// How far the user has read.
        read: Option<String>,
    },
    /// The connection is gone.
    Lost,
    /// Some are gone for good.
    Gap {
        /// Why.
        reason: GapReason,
        /// Of which audience; `None` is all of them.
        audience: Option<Audience>,
    },
    /// Somebody sends a message to a user.
    Send {
        /// Its new id.
        id: String,
        /// The user.
        to: String,
        /// What it says.
        text: String,
    },
    /// Somebody wants a message that was refused to be sent again.
    Retry(u64),
    /// A message has come further.
    Status {
        /// Which.
        id: String,
        /// How far.
        status: Status,
    },
    /// The server refused a message.
    Refused {
        /// Which.
        id: String,
        /// Why.
        why: String,
    },
    /// The user has read this far, on whichever device.
    Read(String),
    /// Somebody has the list before their eyes, or no longer.
    Looking(bool),
    /// Somebody says that all of it is read.
    ReadAll,
    /// How jobs stand, as the server was asked.
    Jobs(Vec<JobState>),
    /// A job could not be started.
    JobRefused {
        /// The job.
        state: JobState,
        /// Why.
        why: String,
    },
    /// The window has room for this many toasts.
    Places(usize),
    /// The toasts are held, or no longer.
    Held(Hold, bool),
    /// Someone closes a toast.
    Closed(u64),
    /// Someone closes the newest toast.
    Escaped,
    /// Someone asks for those that wait.
    More,
    /// Someone reads further down in the list, or is back at its top.
    Away(bool),
    /// Someone has read the notice.
    NoticeClosed,
    /// Time has passed.
    Tick,
}

/// What came before the page was opened.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// The notifications, oldest first.
    pub items: Vec<Delivery>,
    /// The messages that this page sent before it was loaded anew, oldest first.
    pub sent: Vec<Message>,
    /// Where it begins; at the beginning of history where that is not said.
    pub since: Option<String>,
    /// Where it ends.
    pub next: String,
    /// Whether some of it is gone.
    pub gap: bool,
    /// How far the user has read.
    pub read: Option<String>,
}

/// All that the page shows of what came.
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
    /// The cursor after which everything that the page shows came, once there is one; without a cursor
    /// it is all that there is.
    began: Option<Option<String>>,
    /// What the server has to be told.
    frames: Vec<ClientMessage>,
}

impl Inbox {
    /// The signed-in user.
    #[must_use]
    pub fn me(&self) -> Option<&str> {
        self.me.as_deref()
    }

    /// The toasts.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The list.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The messages that this page sent.
    #[must_use]
    pub fn sent(&self) -> &Sent {
        &self.sent
    }

    /// Who won how many.
    #[must_use]
    pub fn race(&self) -> &Race {
        &self.race
    }

    /// How far the list is read.
    #[must_use]
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// What a returning reader is told.
    #[must_use]
    pub fn notice(&self) -> Option<Notice> {
        self.catch_up.notice()
    }

    /// How many in the list are unread.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.rows.items().filter(|item| self.is_unread(item)).count()
    }

    /// Whether an item is unread.
    #[must_use]
    pub fn is_unread(&self, item: &Item) -> bool {
        item.cursor.as_ref().is_some_and(|cursor| self.reading.is_unread(cursor))
    }

    /// The cursor after which everything that the page shows came, for a page that is loaded anew.
    #[must_use]
    pub fn since(&self) -> Option<String> {
        let forgotten = self.rows.forgotten().and_then(|item| item.cursor.as_ref());
        forgotten.map(ToString::to_string).or_else(|| self.began.clone().flatten())
    }

    /// Takes what the server has to be told; nothing while there is no connection.
    pub fn take_frames(&mut self) -> Vec<ClientMessage> {
        std::mem::take(&mut self.frames)
    }

    /// When to say [`Event::Tick`], if nothing else happens.
    #[must_use]
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

    /// Takes in what happened at `now`.
    pub fn apply(&mut self, now: Now, event: Event) {
        match event {
            Event::Began(me) => {
                // Places on the screen stay unique, and the window is the same.
                let (last_slot, looking) = (self.last_slot, self.reading.looking());
                let mut stack = Stack::default();
                stack.set_places(now.ms, self.stack.places());
                *self = Self { me, last_slot, stack, ..Self::default() };
                self.reading.look(looking);
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
                self.say(message.as_deref().and_then(Sent::frame));
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
            Event::Read(cursor) => self.heard_read(&cursor),
            Event::Looking(looking) => self.reading.look(looking),
            Event::ReadAll => {
                if self.reading.mark(now.ms) {
                    self.say_read();
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
