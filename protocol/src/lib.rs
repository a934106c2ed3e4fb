//! The wire protocol of Carillon: notifications, cursors, frames and close codes, and the client core that every reader
//! (viewer, command line, tests) shares. It does no I/O, reads no clock and draws no random numbers: callers pass the time
//! in milliseconds and a random number, so the same code runs in a browser, in a server and in a simulator.

mod acks;
mod audience;
mod backoff;
mod client;
mod close;
mod command;
mod cursor;
mod entry;
mod fields;
mod frame;
pub mod http;
mod json;
pub mod limits;
mod notification;
mod seen;
mod timestamp;

pub use acks::Acks;
pub use audience::{Audience, AudienceError, is_topic};
pub use backoff::Backoff;
pub use client::{Client, ClientEvent, Delivery, Phase, Step};
pub use close::CloseCode;
pub use command::{ClientMessage, Hello, Named};
pub use cursor::{Cursor, CursorError, Position};
pub use entry::{Entry, Refusal, RefusalReason, ready_to_push, sent_by};
pub use frame::{
    GapReason, Presence, Resume, ServerMessage, Status, Welcome, kind_frame, notification_frame,
};

/// The fields of each message of a client: see [`ClientMessage`].
pub mod sent {
    pub use crate::command::{Ack, Message, Read, Send, Subscribe, Token, Unsubscribe};
}

/// The fields of each frame of the server: see [`ServerMessage`].
pub mod received {
    pub use crate::frame::{
        Delivered, Gap, Goodbye, Heartbeat, Raw, ReadPosition, Refused, State, StatusChange,
    };
}
pub use fields::{Fields, object, quoted, to_json};
pub use http::{FieldError, JobStatus, Problem};
pub use json::{check_json, read_json, without_bom};
pub use notification::{Action, Notification, Severity};
pub use seen::Seen;
pub use timestamp::{format_timestamp, parse_timestamp};
