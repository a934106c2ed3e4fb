//! Takes what the connection reports into the page, and has the account, the jobs and the window follow it.

use std::time::Duration;

use carillon_protocol::http::MessageProgress;
use carillon_protocol::received::{ReadPosition, StatusChange};
use carillon_protocol::{CloseCode, Heard, Phase, Resume, ServerMessage, Status, Welcome};
use leptos::prelude::*;

use crate::access::Access;
use crate::connection::{Command, Report};
use crate::http::get;
use crate::inbox::{Event, Message, Past};
use crate::live::{at_window, beside};
use crate::viewer::Viewer;
use crate::{account, job, looking};

/// How often the times on the page are told anew.
const TELL_TIME_EVERY: Duration = Duration::from_secs(1);
/// Of this many of the messages that a page sent before it was loaded anew it asks how far they have come.
const ASKED_MAX_MESSAGES: usize = 20;

/// Starts the page: its connection, and what it does at the window.
pub fn start() -> Viewer {
    let viewer = Viewer::new(take);
    listen(viewer);
    viewer.begin();
    account::watch(viewer);
    viewer
}

fn take(viewer: Viewer, report: Report, sent: &mut Option<Vec<Message>>) {
    match report {
        Report::Phase(phase) => {
            viewer.tell_time();
            if matches!(viewer.phase.get_untracked(), Phase::Live { .. }) {
                viewer.act(Event::Lost);
            }
            viewer.phase.set(phase);
        }
        Report::Heard(heard) => hear(viewer, heard),
        Report::Filled(past) => {
            let sent = sent.take().unwrap_or_default();
            let under_way = sent.iter().rev().filter(|message| is_under_way(message));
            let asked: Vec<_> = under_way.take(ASKED_MAX_MESSAGES).cloned().collect();
            viewer.act(Event::Filled(Past { sent, ..past }));
            beside(job::restore(viewer));
            beside(ask(viewer, asked));
        }
        Report::NotFilled(fault) if fault.status == 401 => beside(account::check(viewer)),
        Report::NotFilled(_) => {}
        Report::Closed { code, welcomed } => closed(viewer, code, welcomed),
    }
}

fn hear(viewer: Viewer, heard: Heard) {
    match heard {
        Heard::Notification(delivery) => viewer.act(Event::Came(delivery)),
        Heard::Welcome(welcome) => {
            viewer.refusal.set(None);
            let Welcome { resume, cursor, user, read, session, .. } = welcome;
            beside(account::ask(viewer));
            if resume == Resume::None {
                beside(job::restore(viewer));
            }
            viewer.act(Event::Welcomed { resume, cursor, user, read });
            if let Some(session) = session {
                // The server may have renewed it.
                viewer.become_known(Access { session: Some(session), ..viewer.access() });
            }
        }
        Heard::Gap { reason, audience } => viewer.act(Event::Gap { reason, audience }),
        Heard::Error { detail, about: Some(id), .. } => viewer.act(Event::Refused { id, why: detail }),
        Heard::Error { detail, .. } => viewer.refusal.set(Some(detail)),
        Heard::Message(message) => match *message {
            ServerMessage::Status(StatusChange { id, status, .. }) => {
                viewer.act(Event::Status { id, status })
            }
            ServerMessage::Read(ReadPosition { read, .. }) => viewer.act(Event::Read(read)),
            _ => {}
        },
        Heard::Repeated | Heard::Goodbye(_) | Heard::Nothing | Heard::Unreadable(_) => {}
    }
}

fn closed(viewer: Viewer, code: Option<CloseCode>, welcomed: bool) {
    let access = viewer.access();
    match code {
        Some(CloseCode::TOKEN_EXPIRED) => beside(account::renew(viewer)),
        Some(CloseCode::REFUSED) if access.pass.is_some() => {
            account::sign_out(viewer, Some("Signed out: the server has withdrawn this sign-in".to_owned()));
        }
        // Whether it was for want of a valid token is not said to a browser's script.
        _ if !welcomed && access.is_known() => beside(account::check(viewer)),
        _ => {}
    }
}

/// Asks how far messages have come whose statuses this page did not hear.
async fn ask(viewer: Viewer, messages: Vec<Message>) {
    let access = viewer.access();
    for Message { id, .. } in messages {
        let path = format!("/api/notifications/{id}");
        let progress = get(&path, &access).await.ok();
        if let Some(status) = progress.and_then(|fields| MessageProgress::read_status(&fields)) {
            viewer.act(Event::Status { id, status });
        }
    }
}

fn listen(viewer: Viewer) {
    at_window("online", move |_| viewer.command(Command::Online));
    at_window("offline", move |_| viewer.command(Command::Offline));
    looking::watch(viewer);
    set_interval(
        move || {
            if !document().hidden() {
                viewer.tell_time();
            }
        },
        TELL_TIME_EVERY,
    );
}

/// Whether a message has left this page and not come to its end.
fn is_under_way(message: &Message) -> bool {
    message.status.is_some_and(|status| status < Status::Read)
}
