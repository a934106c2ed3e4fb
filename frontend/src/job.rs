//! Starts jobs, and finds them again after the page is reloaded.

use carillon_protocol::http::{JobList, JobRequest, JobState, ReportTo, SessionOpened};
use carillon_protocol::to_json;
use gloo_timers::future::TimeoutFuture;

use crate::access::Access;
use crate::connection::Command;
use crate::http::{Fault, get, post};
use crate::id::new_id;
use crate::inbox::{Event, queued};
use crate::live::beside;
use crate::viewer::Viewer;

const NAME: &str = "Demo job";
/// Maximum attempts to start a job, whose id makes repeats harmless.
const TRIES_MAX: u32 = 4;
/// The wait before the second attempt, which doubles with each further one.
const TRY_AGAIN_MS: u32 = 500;

/// Starts a job. It is on the screen at once, and shows there when it is refused.
pub fn run(viewer: Viewer) {
    let state = queued(new_id(), NAME);
    viewer.act(Event::Jobs(vec![state.clone()]));
    beside(async move {
        if let Err(fault) = start(viewer, &state).await {
            viewer.act(Event::JobRefused { state, why: fault.detail });
        }
    });
}

async fn start(viewer: Viewer, state: &JobState) -> Result<(), Fault> {
    let mut wait_ms = TRY_AGAIN_MS;
    for _ in 1..TRIES_MAX {
        match request(viewer, state).await {
            Err(fault) if fault.status == 401 && viewer.access().pass.is_none() => {
                // The session has ended: the next attempt opens a new one.
                viewer.become_known(Access { session: None, ..viewer.access() });
            }
            Err(fault) if fault.is_temporary() => {
                TimeoutFuture::new(wait_ms).await;
                wait_ms *= 2;
            }
            other => return other,
        }
    }
    request(viewer, state).await
}

async fn request(viewer: Viewer, state: &JobState) -> Result<(), Fault> {
    let access = known(viewer).await?;
    let notify = if access.pass.is_some() { ReportTo::User } else { ReportTo::Session };
    let (id, name) = (Some(state.id.clone()), Some(state.name.clone()));
    let body = to_json(&JobRequest { id, name, steps: None, notify: Some(notify) });
    post("/api/jobs", body, &access).await.map(drop)
}

/// Returns credentials that reports can be sent to. A page that starts no job opens no session.
async fn known(viewer: Viewer) -> Result<Access, Fault> {
    let access = viewer.access();
    if access.is_known() {
        return Ok(access);
    }
    // Another tab may have opened one in the meantime.
    let session = match Access::kept().session {
        Some(session) => session,
        None => {
            let fields = post("/api/sessions", "{}".to_owned(), &access).await?;
            SessionOpened::read_token(&fields).unwrap_or_default()
        }
    };
    viewer.become_known(Access { session: Some(session), ..access });
    viewer.command(Command::Reconnect);
    Ok(viewer.access())
}

/// Shows the running jobs.
pub async fn restore(viewer: Viewer) {
    let access = viewer.access();
    if !access.is_known() {
        return;
    }
    if let Ok(fields) = get("/api/jobs", &access).await {
        // The newest comes first, and the list puts what comes on top.
        let mut jobs = JobList::read(&fields).jobs;
        jobs.reverse();
        viewer.act(Event::Jobs(jobs));
    }
}
