//! Applies the reports of the connection to the page, and updates the account, the jobs and the window.

use std::time::Duration;

use carillon_protocol::http::MessageProgress;
use carillon_protocol::received::{ReadPosition, StatusChange};
use carillon_protocol::{ClientEvent, CloseCode, Phase, Resume, ServerMessage, Status, Welcome};
use leptos::prelude::*;

use crate::access::Access;
use crate::connection::{Command, Report};
use crate::http::get;
use crate::inbox::{Event, Message, Past};
use crate::live::{at_window, beside};
use crate::viewer::Viewer;
use crate::{account, job, looking};

/// The interval at which the times on the page are updated.
const UPDATE_TIMES_EVERY: Duration = Duration::from_secs(1);
/// Maximum messages from before a reload whose status is queried.
const QUERIED_MAX_MESSAGES: usize = 20;

/// Starts the page: its connection, and its handlers of window events.
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
            viewer.update_times();
            if matches!(viewer.phase.get_untracked(), Phase::Live { .. }) {
                viewer.act(Event::Lost);
            }
            viewer.phase.set(phase);
        }
        Report::Event(event) => handle_event(viewer, event),
        Report::Filled(past) => {
            let sent = sent.take().unwrap_or_default();
            let under_way = sent.iter().rev().filter(|message| is_under_way(message));
            let queried: Vec<_> = under_way.take(QUERIED_MAX_MESSAGES).cloned().collect();
            viewer.act(Event::Filled(Past { sent, ..past }));
            beside(job::restore(viewer));
            beside(query_statuses(viewer, queried));
        }
        Report::NotFilled(fault) if fault.status == 401 => beside(account::check(viewer)),
        Report::NotFilled(_) => {}
        Report::Closed { code, welcomed } => closed(viewer, code, welcomed),
    }
}

fn handle_event(viewer: Viewer, event: ClientEvent) {
    match event {
        ClientEvent::Notification(delivery) => viewer.act(Event::Came(delivery)),
        ClientEvent::Welcome(welcome) => {
            viewer.refusal.set(None);
            let Welcome { resume, cursor, user, read, session, .. } = welcome;
            beside(account::query_sign_in(viewer));
            if resume == Resume::None {
                beside(job::restore(viewer));
            }
            viewer.act(Event::Welcomed { resume, cursor, user, read });
            if let Some(session) = session {
                // The server may have renewed the session.
                viewer.become_known(Access { session: Some(session), ..viewer.access() });
            }
        }
        ClientEvent::Gap { reason, audience } => viewer.act(Event::Gap { reason, audience }),
        ClientEvent::Error { detail, about: Some(id), .. } => viewer.act(Event::Refused { id, why: detail }),
        ClientEvent::Error { detail, .. } => viewer.refusal.set(Some(detail)),
        ClientEvent::Message(message) => match *message {
            ServerMessage::Status(StatusChange { id, status, .. }) => {
                viewer.act(Event::Status { id, status })
            }
            ServerMessage::Read(ReadPosition { read, .. }) => viewer.act(Event::Read(read)),
            _ => {}
        },
        ClientEvent::Repeated
        | ClientEvent::Goodbye(_)
        | ClientEvent::Nothing
        | ClientEvent::Unreadable(_) => {}
    }
}

fn closed(viewer: Viewer, code: Option<CloseCode>, welcomed: bool) {
    let access = viewer.access();
    match code {
        Some(CloseCode::TOKEN_EXPIRED) => beside(account::renew(viewer)),
        Some(CloseCode::REFUSED) if access.pass.is_some() => {
            account::sign_out(viewer, Some("Signed out: the server has withdrawn this sign-in".to_owned()));
        }
        // A browser does not report whether the cause was an invalid token.
        _ if !welcomed && access.is_known() => beside(account::check(viewer)),
        _ => {}
    }
}

/// Queries the status of messages whose updates this page missed.
async fn query_statuses(viewer: Viewer, messages: Vec<Message>) {
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
                viewer.update_times();
            }
        },
        UPDATE_TIMES_EVERY,
    );
}

/// Whether a message was sent and has not reached its last status.
fn is_under_way(message: &Message) -> bool {
    message.status.is_some_and(|status| status < Status::Read)
}
