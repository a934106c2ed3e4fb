use std::time::Duration;

use leptos::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::icon::Tower;
use crate::live::{beside, later, press, words};

/// Commands that send a notification.
const COMMANDS: [&str; 2] = [r#"carillon send "hello""#, "redis-cli LPUSH Notification-List hello"];
/// How long a button shows that it has copied.
const COPIED: Duration = Duration::from_secs(2);

/// The content of an empty list.
#[component]
pub fn Empty() -> impl IntoView {
    view! {
        <div class="empty" data-testid="empty">
            <Tower/>
            <p class="lead">"No notifications yet"</p>
            <p>"Send one from a terminal:"</p>
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

/// Copies a text to the clipboard, and returns whether that worked. Without a secure context there is no clipboard, but the
/// command can be selected.
async fn copy_text(text: &str) -> bool {
    let clipboard = window().navigator().clipboard();
    if clipboard.is_undefined() {
        return false;
    }
    JsFuture::from(clipboard.write_text(text)).await.is_ok()
}
