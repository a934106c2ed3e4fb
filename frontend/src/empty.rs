use std::time::Duration;

use leptos::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::icon::Tower;
use crate::live::{beside, later, press, words};

/// Commands that make something ring.
const COMMANDS: [&str; 2] = [r#"carillon send "hello""#, "redis-cli LPUSH Notification-List hello"];
/// How long a button says that it has done its work.
const COPIED: Duration = Duration::from_secs(2);

/// What the list shows while there is nothing in it.
#[component]
pub fn Empty() -> impl IntoView {
    view! {
        <div class="empty" data-testid="empty">
            <Tower/>
            <p class="lead">"Nothing has rung yet"</p>
            <p>"Ring it yourself, from a terminal:"</p>
            {COMMANDS.map(|command| view! { <CommandLine command/> })}
        </div>
    }
}

#[component]
fn CommandLine(command: &'static str) -> impl IntoView {
    let copied = RwSignal::new(false);
    let copy = move || {
        beside(async move {
            if copy_text(command).await {
                copied.set(true);
                later(
                    move || {
                        copied.try_set(false);
                    },
                    COPIED,
                );
            }
        });
    };
    view! {
        <div class="command">
            <code>{command}</code>
            <button class="small" on:click=press(copy)>
                <span aria-live="polite">{words(move || Some(if copied.get() { "Copied" } else { "Copy" }))}</span>
                <span class="unseen">" " {command}</span>
            </button>
        </div>
    }
}

/// Whether the text is in the clipboard now. Without a secure context there is none: the command can be
/// selected all the same.
async fn copy_text(text: &str) -> bool {
    let clipboard = window().navigator().clipboard();
    if clipboard.is_undefined() {
        return false;
    }
    JsFuture::from(clipboard.write_text(text)).await.is_ok()
}
