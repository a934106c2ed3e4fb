//! Frames that reach readers outside of the sequence: current values, raw payloads, notifications for one connection, and
//! the order to close. These frames are not stored. A reader whose mailbox is full is closed with 4001 (slow).

use std::sync::Arc;

use bytes::Bytes;
use carillon_auth::seal::{KeyId, SessionId};
use carillon_broker::Fanout;
use carillon_protocol::{Audience, CloseCode, Cursor, Entry, notification_frame};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{Hub, Next, Reader, ReaderId, State};
use crate::metrics;

/// Maximum frames in a mailbox. One more closes its reader as slow.
pub(super) const DIRECT_MAX_FRAMES: usize = 512;
/// Maximum bytes in a mailbox. A larger single frame is accepted when the mailbox is empty.
pub(super) const DIRECT_MAX_BYTES: usize = 512 * 1024;
/// Maximum bytes in all mailboxes of a replica. A frame above that closes its reader as slow.
pub(super) const MAILBOXES_MAX_BYTES: usize = 32 * 1024 * 1024;

/// A frame for a reader's connection alone.
#[derive(Clone, Debug)]
pub enum Direct {
    /// A payload that a program published for a user.
    Raw {
        /// The bytes as published.
        payload: Bytes,
        /// The frame.
        frame: Utf8Bytes,
    },
    /// A user's state, as the JSON object of its fields.
    State(Utf8Bytes),
    /// Whether a user is online.
    Presence {
        /// The user.
        user: Arc<str>,
        /// The fields of the frame after its cursor, as `"user":…,"online":…`.
        fields: Utf8Bytes,
    },
    /// A notification for one connection.
    Notification {
        /// The replica that claimed it.
        claimed_by: Arc<str>,
        /// The entry.
        entry: Arc<Entry>,
    },
}

impl Direct {
    /// Returns the frame for `/ws` and `/sse`, with the reader's cursor. It does not move the reader: a resume starts after
    /// the last entry of the sequence.
    pub fn frame(&self, cursor: &Cursor) -> Utf8Bytes {
        match self {
            Self::Raw { frame, .. } => frame.clone(),
            Self::State(state) => format!(r#"{{"type":"state","state":{state}}}"#).into(),
            Self::Presence { fields, .. } => {
                format!(r#"{{"type":"presence","cursor":"{cursor}",{fields}}}"#).into()
            }
            Self::Notification { claimed_by, entry } => {
                notification_frame(cursor, claimed_by, &entry.json).into()
            }
        }
    }
}

impl Direct {
    /// Whether this is a newer value of the same kind and user.
    fn replaces(&self, older: &Self) -> bool {
        match (self, older) {
            (Self::State(_), Self::State(_)) => true,
            (Self::Presence { user, .. }, Self::Presence { user: of, .. }) => user == of,
            _ => false,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::State(text) | Self::Presence { fields: text, .. } => text.len(),
            Self::Raw { payload, frame } => payload.len() + frame.len(),
            Self::Notification { entry, .. } => entry.json.len(),
        }
    }
}

/// The credential that a reader connected with, by which it can be closed later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credential {
    /// The signed-in user.
    pub user: Option<String>,
    /// The token's own id, where it has one.
    pub token_id: Option<String>,
    /// When the token was issued, in seconds since 1970; 0 where it has no `iat`.
    pub issued_at_s: u64,
    /// The session, and the key that has sealed its token.
    pub session: Option<(SessionId, KeyId)>,
}

/// The frames that wait for one reader.
#[derive(Default)]
pub(super) struct Mailbox {
    waiting: Vec<Direct>,
    bytes: usize,
    close: Option<CloseCode>,
}

impl Mailbox {
    /// Returns the waiting frames. An order to close comes alone: the frames before it are dropped.
    pub(super) fn into_next(self, cursor: Cursor) -> Next {
        match self.close {
            Some(code) => Next::Close(code),
            None => Next::Direct(self.waiting, cursor),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a frame. Returns `false` when the mailbox is full.
    fn put(&mut self, direct: Direct) -> bool {
        // A value replaces an older one that was not written yet.
        let old = self.waiting.iter().position(|waits| direct.replaces(waits));
        self.bytes -= old.map_or(0, |old| self.waiting.remove(old).bytes());
        let bytes = self.bytes + direct.bytes();
        let has_room = self.waiting.len() < DIRECT_MAX_FRAMES && bytes <= DIRECT_MAX_BYTES;
        if has_room || self.waiting.is_empty() {
            self.bytes = bytes;
            self.waiting.push(direct);
            return true;
        }
        false
    }
}

impl Reader {
    /// Adds a frame to the mailbox and updates `mail_bytes`, the sum over all readers.
    pub(super) fn send_direct(&mut self, direct: Direct, mail_bytes: &mut usize) {
        let before = self.mail_bytes();
        let has_room = *mail_bytes + direct.bytes() <= MAILBOXES_MAX_BYTES;
        if has_room && self.mailbox.get_or_insert_default().put(direct) {
            self.notify.notify_one();
        } else {
            metrics::direct_overflowed();
            self.close_with(CloseCode::SLOW);
        }
        *mail_bytes = *mail_bytes + self.mail_bytes() - before;
    }

    pub(super) fn mail_bytes(&self) -> usize {
        self.mailbox.as_ref().map_or(0, |mailbox| mailbox.bytes())
    }

    fn close_with(&mut self, code: CloseCode) {
        self.mailbox.get_or_insert_default().close = Some(code);
        self.notify.notify_one();
    }
}

impl Hub {
    /// Sends a frame to every reader of an audience here, and returns their number.
    pub fn send_direct(&self, audience: &Audience, direct: &Direct) -> usize {
        let mut state = self.state.lock();
        let State { rings, readers, mail_bytes, .. } = &mut *state;
        let Some(ring) = rings.get(audience) else { return 0 };
        for id in ring.readers.keys() {
            if let Some(reader) = readers.get_mut(id) {
                reader.send_direct(direct.clone(), mail_bytes);
            }
        }
        ring.readers.len()
    }

    /// Sets the credential that a reader connected with.
    pub fn set_credential(&self, id: ReaderId, credential: Arc<Credential>) {
        if let Some(reader) = self.state.lock().readers.get_mut(&id) {
            reader.credential = Some(credential);
        }
    }

    /// Closes the readers whose credential fulfils `condition`, and returns their number.
    pub fn close_readers(&self, condition: impl Fn(&Credential) -> bool) -> usize {
        let mut state = self.state.lock();
        let meets = |reader: &&mut Reader| reader.credential.as_deref().is_some_and(&condition);
        state.readers.values_mut().filter(meets).map(|reader| reader.close_with(CloseCode::REFUSED)).count()
    }

    /// Notified when a user's number of readers here has changed.
    pub fn user_change_notify(&self) -> &Notify {
        &self.user_changed
    }

    pub(super) fn user_has_changed(&self, state: &mut State, audience: &Audience) {
        if let Audience::User(user) = audience {
            if !state.users_changed.contains(user) {
                state.users_changed.insert(user.clone());
            }
            self.user_changed.notify_one();
        }
    }

    /// Returns the users whose number of readers here has changed since the last call, with that number.
    pub fn users_changed(&self) -> Vec<(String, usize)> {
        let mut state = self.state.lock();
        let changed = std::mem::take(&mut state.users_changed);
        changed
            .into_iter()
            .map(|user| {
                let ring = state.rings.get(&Audience::User(user.clone()));
                (user, ring.map_or(0, |ring| ring.readers.len()))
            })
            .collect()
    }

    /// Returns all users that have readers here, with their number.
    pub fn users(&self) -> Vec<(String, usize)> {
        let state = self.state.lock();
        let readers = state.rings.iter().filter_map(|(audience, ring)| match audience {
            Audience::User(user) => Some((user.clone(), ring.readers.len())),
            _ => None,
        });
        readers.collect()
    }
}

impl State {
    /// Receives entries for connections of this run. Each names its reader in its own `to`.
    pub(super) fn for_connections(&mut self, fanout: &Fanout) {
        self.advance(fanout);
        let claimed_by: Arc<str> = fanout.claimed_by.as_str().into();
        for stored in &fanout.entries {
            let Ok(entry) = Entry::read(&stored.raw, stored.position) else { continue };
            let State { readers, mail_bytes, .. } = self;
            match reader_of(&entry.audience).and_then(|id| readers.get_mut(&id)) {
                Some(reader) => {
                    let (claimed_by, entry) = (Arc::clone(&claimed_by), Arc::new(entry));
                    reader.send_direct(Direct::Notification { claimed_by, entry }, mail_bytes);
                }
                None => metrics::connection_gone(),
            }
        }
    }
}

/// Returns the reader of a connection's id: see [`connection_id`].
fn reader_of(audience: &Audience) -> Option<ReaderId> {
    ReaderId::from_str_radix(audience.name()?.rsplit_once('-')?.1, 16).ok()
}

/// Returns the id of a reader's connection. The part before its last dash names this run of the replica, which subscribes to
/// one channel for all its connections.
pub fn connection_id(run: &str, id: ReaderId) -> String {
    format!("{run}-{id:016x}")
}
