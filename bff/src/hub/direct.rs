//! What reaches readers outside of the sequence: a user's state, raw payloads, notifications for one
//! connection, refusals, and the order to close. None of it has history, so none of it is behind; what
//! a reader does not take in time, it is told by being closed as slow.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use carillon_broker::Fanout;
use carillon_protocol::{Audience, CloseCode, Cursor, Entry, notification_frame};

use super::{Hub, Reader, ReaderId, State, Take};
use crate::metrics;

/// Direct frames that wait for one reader at most, beyond which it is closed as slow.
pub(super) const DIRECT_MAX_FRAMES: usize = 512;
/// And their bytes. One that is larger waits alone.
pub(super) const DIRECT_MAX_BYTES: usize = 512 * 1024;

/// Something for a reader's connection alone.
#[derive(Clone, Debug)]
pub enum Direct {
    /// What a program published for a user: its bytes, and the `raw` frame around them.
    Raw {
        /// The payload.
        payload: Bytes,
        /// The frame.
        frame: Utf8Bytes,
    },
    /// A user's state: the JSON object of its fields.
    State(Utf8Bytes),
    /// A notification for one connection.
    Notification {
        /// The replica that won the race for it.
        claimed_by: Arc<str>,
        /// The entry.
        entry: Arc<Entry>,
    },
}

impl Direct {
    /// The frame on `/ws` and `/sse`, for a reader that stands at `cursor`. It does not move the reader:
    /// a resume begins after what came in the sequence.
    #[must_use]
    pub fn frame(&self, cursor: &Cursor) -> Utf8Bytes {
        match self {
            Self::Raw { frame, .. } => frame.clone(),
            Self::State(state) => format!(r#"{{"type":"state","state":{state}}}"#).into(),
            Self::Notification { claimed_by, entry } => {
                notification_frame(cursor, claimed_by, &entry.json).into()
            }
        }
    }
}

impl Direct {
    fn bytes(&self) -> usize {
        match self {
            Self::State(text) => text.len(),
            Self::Raw { payload, frame } => payload.len() + frame.len(),
            Self::Notification { entry, .. } => entry.json.len(),
        }
    }
}

/// What a reader was let in with, so that it can be shut out again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The signed-in user.
    pub user: String,
    /// The token's own id, where it has one.
    pub token_id: Option<String>,
    /// When the token was issued, in seconds since 1970; 0 where it does not say.
    pub issued_at_s: u64,
}

/// What waits for one reader.
#[derive(Default)]
pub(super) struct Mailbox {
    waiting: Vec<Direct>,
    bytes: usize,
    close: Option<CloseCode>,
}

impl Mailbox {
    /// Hands over what waits. A close comes last, and alone.
    pub(super) fn open(self, cursor: Cursor) -> Take {
        match self.close {
            Some(code) => Take::Close(code),
            None => Take::Direct(self.waiting, cursor),
        }
    }

    /// Says whether there was room.
    fn put(&mut self, direct: Direct) -> bool {
        if matches!(direct, Direct::State(_)) {
            // A state takes the place of an older one that nobody has seen.
            let old = self.waiting.iter().position(|waits| matches!(waits, Direct::State(_)));
            self.bytes -= old.map_or(0, |old| self.waiting.remove(old).bytes());
        }
        let bytes = self.bytes + direct.bytes();
        let is_room = self.waiting.len() < DIRECT_MAX_FRAMES && bytes <= DIRECT_MAX_BYTES;
        if is_room || self.waiting.is_empty() {
            self.bytes = bytes;
            self.waiting.push(direct);
            return true;
        }
        false
    }
}

impl Reader {
    pub(super) fn post(&mut self, direct: Direct) {
        if self.mailbox.get_or_insert_default().put(direct) {
            self.notify.notify_one();
        } else {
            metrics::direct_overflowed();
            self.shut(CloseCode::SLOW);
        }
    }

    fn shut(&mut self, code: CloseCode) {
        self.mailbox.get_or_insert_default().close = Some(code);
        self.notify.notify_one();
    }
}

impl Hub {
    /// Sends something to every reader that an audience has here, and says how many those are.
    pub fn tell(&self, audience: &Audience, direct: &Direct) -> usize {
        let mut state = self.state();
        let State { rings, readers, .. } = &mut *state;
        let Some(ring) = rings.get(audience) else { return 0 };
        for id in ring.readers.keys() {
            if let Some(reader) = readers.get_mut(id) {
                reader.post(direct.clone());
            }
        }
        ring.readers.len()
    }

    /// Notes what a reader was let in with.
    pub fn admit(&self, id: ReaderId, credential: Arc<Credential>) {
        if let Some(reader) = self.state().readers.get_mut(&id) {
            reader.credential = Some(credential);
        }
    }

    /// Shuts out the readers whose credential fulfils `condition`, and says how many those are.
    pub fn shut_out(&self, condition: impl Fn(&Credential) -> bool) -> usize {
        let mut state = self.state();
        let meets = |reader: &&mut Reader| reader.credential.as_deref().is_some_and(&condition);
        state.readers.values_mut().filter(meets).map(|reader| reader.shut(CloseCode::REFUSED)).count()
    }

    /// Returns when a user's number of readers here has changed; at once when that was since the last call.
    pub async fn user_came_or_went(&self) {
        self.user_changed.notified().await;
    }

    pub(super) fn note_user(&self, state: &mut State, audience: &Audience) {
        if let Audience::User(user) = audience {
            if !state.users_changed.contains(user) {
                state.users_changed.insert(user.clone());
            }
            self.user_changed.notify_one();
        }
    }

    /// Users whose number of readers here has changed since the last call, with that number.
    pub fn users_changed(&self) -> Vec<(String, usize)> {
        let mut state = self.state();
        let changed = std::mem::take(&mut state.users_changed);
        changed
            .into_iter()
            .map(|user| {
                let ring = state.rings.get(&Audience::User(user.clone()));
                (user, ring.map_or(0, |ring| ring.readers.len()))
            })
            .collect()
    }

    /// All users that have readers here, with their number.
    #[must_use]
    pub fn users(&self) -> Vec<(String, usize)> {
        let state = self.state();
        let readers = state.rings.iter().filter_map(|(audience, ring)| match audience {
            Audience::User(user) => Some((user.clone(), ring.readers.len())),
            _ => None,
        });
        readers.collect()
    }
}

impl State {
    /// Entries for connections of this run. Each names its reader in its own `to`.
    pub(super) fn for_connections(&mut self, fanout: &Fanout) {
        self.heard(fanout);
        let claimed_by: Arc<str> = fanout.claimed_by.as_str().into();
        for stored in &fanout.entries {
            let Ok(entry) = Entry::read(&stored.raw, stored.position) else { continue };
            let reader = reader_of(&entry.audience).and_then(|id| self.readers.get_mut(&id));
            match reader {
                Some(reader) => reader.post(Direct::Notification {
                    claimed_by: Arc::clone(&claimed_by),
                    entry: Arc::new(entry),
                }),
                None => metrics::connection_gone(),
            }
        }
    }
}

/// The reader that a connection's id ends with: see [`connection_id`].
fn reader_of(audience: &Audience) -> Option<ReaderId> {
    ReaderId::from_str_radix(audience.name()?.rsplit_once('-')?.1, 16).ok()
}

/// The id of a reader's connection. What is in front of its last dash names this run of the replica,
/// which hears one channel for all its connections.
#[must_use]
pub fn connection_id(run: &str, id: ReaderId) -> String {
    format!("{run}-{id:016x}")
}
