//! Signs a demo user in and out, and refreshes the token.

use std::time::Duration;

use carillon_protocol::http::{SignInRequest, SignedIn};
use carillon_protocol::limits::NAME_MAX_BYTES;
use carillon_protocol::sent::Token;
use carillon_protocol::{ClientMessage, to_json};
use leptos::prelude::*;

use crate::access::Access;
use crate::clock::now;
use crate::connection::Command;
use crate::http::{Fault, post, status};
use crate::live::{beside, later};
use crate::place::Place;
use crate::viewer::Viewer;

const TOKEN_PATH: &str = "/api/demo/token";
/// A token is refreshed this long before it expires …
const RENEW_BEFORE_MS: u64 = 60_000;
/// … and never sooner than this, whatever the device's clock shows.
const RENEW_MIN_MS: u64 = 5_000;
/// The longest timer that browsers support correctly.
const RENEW_MAX_MS: u64 = 24 * 60 * 60 * 1_000;

/// Queries whether this server signs demo users in. Only a live page does: before that, another replica could answer, and
/// its cookie would then lead the browser there.
pub async fn query_sign_in(viewer: Viewer) {
    if !viewer.offered.get_untracked() {
        viewer.offered.set(status("/api/demo", &Access::default()).await == 204);
    }
}

/// Returns the fault of a name, if it has one.
pub fn name_fault(name: &str) -> Option<String> {
    match name.len() {
        0 => Some("Type a name first".to_owned()),
        1..=NAME_MAX_BYTES => None,
        bytes => Some(format!("A name has at most {NAME_MAX_BYTES} bytes, this one has {bytes}")),
    }
}

async fn fetch(user: &str) -> Result<SignedIn, Fault> {
    let body = to_json(&SignInRequest { user: user.to_owned() });
    let fields = post(TOKEN_PATH, body, &Access::default()).await?;
    let unreadable = || Fault { status: 0, detail: "The token cannot be read".to_owned() };
    SignedIn::read(&fields).ok_or_else(unreadable)
}

/// Signs in, and restarts the page as this user's.
///
/// # Errors
/// The reason of the server's refusal.
pub async fn sign_in(viewer: Viewer, user: &str) -> Result<(), Fault> {
    let pass = fetch(user).await?;
    viewer.ended.set(None);
    Place::forget();
    viewer.become_known(Access { pass: Some(pass), ..viewer.access() });
    viewer.begin();
    watch(viewer);
    Ok(())
}

/// Signs out, and shows the reason if the user did not request it.
pub fn sign_out(viewer: Viewer, why: Option<String>) {
    viewer.ended.set(why);
    Place::forget();
    viewer.become_known(Access { pass: None, ..viewer.access() });
    viewer.begin();
    watch(viewer);
}

/// Sets the timer at which the token is refreshed.
pub fn watch(viewer: Viewer) {
    let mut renewal = viewer.renewal.write_value();
    if let Some(alarm) = renewal.take() {
        alarm.clear();
    }
    let Some(ends_ms) = viewer.access().pass.as_ref().map(SignedIn::ends_ms) else { return };
    let left_ms = ends_ms.saturating_sub(now().wall_ms);
    let wait_ms = left_ms.saturating_sub(RENEW_BEFORE_MS).max(left_ms / 2).clamp(RENEW_MIN_MS, RENEW_MAX_MS);
    *renewal = later(move || beside(renew(viewer)), Duration::from_millis(wait_ms));
}

/// Fetches a new token and sends it to the server. A refusal signs out; without an answer it is retried.
pub async fn renew(viewer: Viewer) {
    let Some(user) = viewer.access().user().map(str::to_owned) else { return };
    let fresh = fetch(&user).await;
    if viewer.access().user() != Some(&user) {
        return;
    }
    match fresh {
        Ok(pass) => {
            viewer.command(Command::Send(ClientMessage::Token(Token { token: pass.token.clone() })));
            viewer.become_known(Access { pass: Some(pass), ..viewer.access() });
        }
        Err(fault) if fault.is_temporary() => {}
        Err(fault) => return sign_out(viewer, Some(format!("Signed out: {}", fault.detail))),
    }
    watch(viewer);
}

/// Finds out which credential the server refuses, since a browser does not report why a socket was refused. The next attempt
/// then uses other credentials.
pub async fn check(viewer: Viewer) {
    const PATH: &str = "/api/notifications?limit=1";
    let access = viewer.access();
    if status(PATH, &access).await != 401 {
        return;
    }
    if access.pass.is_some() {
        renew(viewer).await;
    }
    let alone = Access { pass: None, ..access };
    if alone.is_known() && status(PATH, &alone).await == 401 && viewer.access().session == alone.session {
        viewer.become_known(Access { session: None, ..viewer.access() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_counted_in_bytes() {
        assert_eq!(name_fault("anna"), None);
        assert!(name_fault("").is_some() && name_fault(&"é".repeat(65)).is_some());
        assert_eq!(name_fault(&"é".repeat(64)), None);
    }
}
