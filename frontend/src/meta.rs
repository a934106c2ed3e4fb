use std::sync::Arc;

use leptos::prelude::*;

use crate::inbox::Item;
use crate::viewer::Viewer;
use crate::words::{ago, exact};

/// Who won it and how long ago: "bff-2 · now".
#[component]
pub fn Meta(item: Arc<Item>) -> impl IntoView {
    let viewer = Viewer::here();
    let at_ms = item.at_ms;
    let since = Memo::new(move |_| ago(at_ms, viewer.now.get().wall_ms));
    view! {
        <p class="meta">
            <span class="unseen">"claimed by "</span>
            <bdi title=item.replica.clone()>{item.replica.clone()}</bdi>
            " · "
            <time title=exact(at_ms)>{since}</time>
        </p>
    }
}
