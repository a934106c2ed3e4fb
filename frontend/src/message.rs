use std::sync::Arc;

use carillon_protocol::Status;
use leptos::prelude::*;

use crate::icon::{Avatar, Ticks};
use crate::inbox::{Event, Message};
use crate::live::{part, press, words};
use crate::meta::Since;
use crate::viewer::Viewer;

/// The status of a message: for the style sheet and for people.
fn state(message: &Message) -> (&'static str, &'static str) {
    if message.failed.is_some() {
        return ("failed", "Not sent");
    }
    match message.status {
        None => ("waiting", "Waiting"),
        Some(Status::None) => ("none", "Stored"),
        Some(Status::Sent) => ("sent", "Sent"),
        Some(Status::Delivered) => ("delivered", "Delivered"),
        Some(Status::Read) => ("read", "Read"),
    }
}

/// Its drawing: a clock, one tick, two ticks, or a mark.
fn ticks(message: &Message) -> &'static str {
    match state(message).0 {
        "failed" => "M9 3v6M9 12.4v.1",
        "waiting" => "M9 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11ZM9 5v3.2l2.2 1.3",
        "none" | "sent" => "m5.5 8.6 3 3 6.5-7",
        _ => "m1.5 8.6 3 3 6.5-7M9.4 11l.6.6 6.5-7",
    }
}

/// A message that this page sent, in the list.
#[component]
pub fn SentRow(message: Arc<Message>) -> impl IntoView {
    let viewer = Viewer::here();
    let Message { slot, id, to, text, at_ms, .. } = (*message).clone();
    let latest = Memo::new(move |before: Option<&Arc<Message>>| {
        // A message that is no longer followed keeps its last status.
        let found = viewer.inbox.read().sent().at(slot).cloned();
        found.unwrap_or_else(|| Arc::clone(before.unwrap_or(&message)))
    });
    let failed = part(
        move || latest.read().failed.clone(),
        move |why| {
            view! {
            <p class="failure" role="alert">{why.clone()}</p>
            <button class="fold" data-testid="retry" on:click=press(move || viewer.act(Event::Retry(slot)))>
                "Send again"
            </button>
        }
        .into_any()
        },
    );
    view! {
        <li class="row sent" data-testid="row" data-id=id data-status=words(move || Some(state(&latest.read()).0))>
            <div class="card">
                <Avatar name=to.clone()/>
                <div class="content">
                    <h3 dir="auto"><span class="quietly">"To "</span> <bdi>{to}</bdi></h3>
                    <p class="body" dir="auto">{text}</p>
                    {failed}
                </div>
                <p class="meta">
                    <span class="how-far">
                        <Ticks drawing=words(move || Some(ticks(&latest.read())))/>
                        {words(move || Some(state(&latest.read()).1))}
                    </span>
                    " · "
                    <Since at_ms/>
                </p>
            </div>
        </li>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_word() {
        let mut message = Message {
            slot: 1,
            id: "a".into(),
            to: "bob".into(),
            text: "t".into(),
            at_ms: 0,
            status: None,
            failed: None,
        };
        let mut words = vec![state(&message)];
        for status in [Status::None, Status::Sent, Status::Delivered, Status::Read] {
            message.status = Some(status);
            words.push(state(&message));
            assert_eq!(state(&message).0, status.as_str());
        }
        message.failed = Some("why".into());
        words.push(state(&message));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 6, "{words:?}");
    }
}
