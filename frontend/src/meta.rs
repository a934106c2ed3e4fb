use std::sync::Arc;

use leptos::prelude::*;

use crate::icon::{Avatar, SeverityIcon};
use crate::inbox::Item;
use crate::live::{number, part, words};
use crate::viewer::Viewer;
use crate::words::{ago, exact};

/// The replica that claimed it and how long ago: "bff-2 · now".
#[component]
pub fn Meta(item: Arc<Item>) -> impl IntoView {
    let (replica, at_ms) = (item.replica.clone(), item.at_ms);
    view! {
        <p class="meta">
            {(!replica.is_empty()).then(|| view! {
                <span class="unseen">"claimed by "</span>
                <bdi title=replica.clone()>{replica.clone()}</bdi>
                " · "
            })}
            <Since at_ms/>
        </p>
    }
}

/// The time since `at_ms`.
#[component]
pub fn Since(at_ms: u64) -> impl IntoView {
    let viewer = Viewer::here();
    let since = Memo::new(move |_| ago(at_ms, viewer.now.get().wall_ms));
    view! { <time title=exact(at_ms)>{since}</time> }
}

/// The mark of a notification: its severity, or its sender.
#[component]
pub fn Mark(item: Arc<Item>) -> impl IntoView {
    match item.sender.clone() {
        Some(name) => view! { <Avatar name/> }.into_any(),
        None => view! { <SeverityIcon severity=item.severity/> }.into_any(),
    }
}

/// The progress of a running job.
#[component]
pub fn Progress(item: Signal<Option<Arc<Item>>>) -> impl IntoView {
    let percent = move || {
        let item = item.read();
        let running = item.as_ref().filter(|item| item.is_running());
        running.and_then(|item| item.job.as_ref()).map(|job| job.progress.min(100))
    };
    part(
        move || percent().map(|_| String::new()),
        move |_| {
            view! {
                <div
                    class="progress"
                    role="progressbar"
                    aria-label="Progress"
                    aria-valuemin="0"
                    aria-valuemax="100"
                    aria-valuenow=words(percent)
                >
                    <span style:--done=number(move || percent().unwrap_or_default())></span>
                </div>
            }
            .into_any()
        },
    )
}
