use std::sync::Arc;

use carillon_protocol::{Action, GapReason};
use leptos::ev;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::batch::batch;
use crate::empty::Empty;
use crate::icon::SeverityIcon;
use crate::inbox::{Event, Item, Row};
use crate::meta::Meta;
use crate::notice::gap_words;
use crate::viewer::Viewer;

const LIST_ID: &str = "came";
/// A body above this many characters, or lines, is folded.
const FOLD_ABOVE_CHARS: usize = 320;
const FOLD_ABOVE_LINES: usize = 5;
/// The list counts as left when its head is this far above the window, in pixels.
const AWAY_ABOVE_PX: f64 = -24.0;

/// What came, newest first.
#[component]
pub fn List() -> impl IntoView {
    let viewer = Viewer::here();
    let frames = RwSignal::new(0_u64);
    let rows = Memo::new(move |drawn: Option<&Vec<Row>>| {
        frames.track();
        viewer.inbox.with(|inbox| batch(drawn.map_or(&[], Vec::as_slice), inbox.rows().shown()))
    });
    Effect::new(move || {
        let all = viewer.inbox.with(|inbox| inbox.rows().shown().len());
        if rows.with(Vec::len) < all {
            request_animation_frame(move || frames.update(|frames| *frames += 1));
        }
    });
    let fresh = Memo::new(move |_| viewer.inbox.with(|inbox| inbox.rows().fresh()));
    let empty = Memo::new(move |_| rows.with(Vec::is_empty));
    watch_scrolling(viewer);
    let back = move |_| {
        viewer.act(Event::Away(false));
        show_top();
    };
    view! {
        <section class="list" aria-labelledby=LIST_ID>
            <h2 id=LIST_ID tabindex="-1">"What came"</h2>
            <div class="new-place">
                <Show when=move || { fresh.get() > 0 }>
                    <button class="new" data-testid="new" on:click=back>
                        {move || format!("{} new", fresh.get())}
                    </button>
                </Show>
            </div>
            <Show when=move || empty.get()>
                <Empty/>
            </Show>
            <ol class="rows">
                <For each=move || rows.get() key=row_key let:row>
                    {match row {
                        Row::Item(item) => view! { <ItemRow item/> }.into_any(),
                        Row::Gap { reason, .. } => view! { <GapRow reason/> }.into_any(),
                    }}
                </For>
            </ol>
        </section>
    }
}

/// A row that takes another's place is drawn anew.
fn row_key(row: &Row) -> (u64, String) {
    match row {
        Row::Item(item) => (item.slot, item.id.clone()),
        Row::Gap { slot, .. } => (*slot, String::new()),
    }
}

#[component]
fn ItemRow(item: Arc<Item>) -> impl IntoView {
    let Item { id, title, body, action, severity, .. } = (*item).clone();
    view! {
        <li class="row" data-testid="row" data-id=id data-severity=severity.as_str()>
            <div class="card">
                <SeverityIcon severity/>
                <div class="content">
                    {(!title.is_empty()).then(|| view! { <h3 dir="auto">{title}</h3> })}
                    {(!body.is_empty()).then(|| view! { <Body body/> })}
                    {action.map(|action| view! { <ActionLink action/> })}
                </div>
                <Meta item/>
            </div>
        </li>
    }
}

/// The text of a row; a long one is folded, and a button shows all of it.
#[component]
fn Body(body: String) -> impl IntoView {
    let long = body.chars().count() > FOLD_ABOVE_CHARS || body.lines().count() > FOLD_ABOVE_LINES;
    let folded = RwSignal::new(long);
    let label = move || if folded.get() { "Show all" } else { "Show less" };
    view! {
        <p class="body" dir="auto" class:folded=folded>{body}</p>
        {long.then(|| view! {
            <button
                class="fold"
                aria-expanded=move || (!folded.get()).to_string()
                on:click=move |_| folded.update(|folded| *folded = !*folded)
            >
                {label}
            </button>
        })}
    }
}

#[component]
fn GapRow(reason: GapReason) -> impl IntoView {
    view! {
        <li class="gap-row" data-testid="gap-row">
            <p>{gap_words(reason)}</p>
        </li>
    }
}

/// Something to do about a notification. Where it leads learns nothing of this page.
#[component]
pub fn ActionLink(action: Action) -> impl IntoView {
    let Action { label, url } = action;
    view! {
        <a class="action" href=url target="_blank" rel="noopener noreferrer" dir="auto">{label}</a>
    }
}

/// Scrolls to the newest.
pub fn show_top() {
    if let Some(head) = head() {
        // The style sheet says whether this moves or jumps.
        head.scroll_into_view();
    }
    focus();
}

/// Puts the keyboard at the head of the list.
pub fn focus() {
    let options = web_sys::FocusOptions::new();
    options.set_prevent_scroll(true);
    if let Some(head) = head().and_then(|head| head.dyn_into::<web_sys::HtmlElement>().ok()) {
        drop(head.focus_with_options(&options));
    }
}

fn head() -> Option<web_sys::Element> {
    document().get_element_by_id(LIST_ID)
}

/// Tells the inbox when someone reads further down.
fn watch_scrolling(viewer: Viewer) {
    let was_away = StoredValue::new(false);
    let look = move || {
        let away = head().is_some_and(|head| head.get_bounding_client_rect().top() < AWAY_ABOVE_PX);
        if away != was_away.get_value() {
            was_away.set_value(away);
            viewer.act(Event::Away(away));
        }
    };
    let _ = window_event_listener(ev::scroll, move |_| look());
}
