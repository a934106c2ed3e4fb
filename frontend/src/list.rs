use std::sync::Arc;

use carillon_protocol::{Action, Audience, GapReason};
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::batch::batch;
use crate::empty::Empty;
use crate::inbox::{Event, Item, Row};
use crate::live::{each, mark, next_frame, part, press, words};
use crate::message::SentRow;
use crate::meta::{Mark, Meta, Progress};
use crate::notice::gap_words;
use crate::title::{count_words, to_show};
use crate::viewer::Viewer;

const LIST_ID: &str = "came";
/// A longer body, in characters or lines, is folded.
const FOLD_ABOVE_CHARS: usize = 320;
const FOLD_ABOVE_LINES: usize = 5;

/// The list, newest first.
#[component]
pub fn List() -> impl IntoView {
    let viewer = Viewer::here();
    let frames = RwSignal::new(0_u64);
    let rows = Memo::new(move |drawn: Option<&Vec<u64>>| {
        frames.track();
        batch(drawn.map_or(&[], Vec::as_slice), viewer.inbox.read().rows().shown().map(Row::slot))
    });
    Effect::new(move || {
        let all = viewer.inbox.read().rows().shown().len();
        if rows.read().len() < all {
            next_frame(move || frames.set(frames.get_untracked() + 1));
        }
    });
    let fresh = move || Some(viewer.inbox.read().rows().fresh()).filter(|fresh| *fresh > 0);
    let back = move || {
        viewer.act(Event::Away(false));
        show_top();
    };
    view! {
        <section class="list" aria-labelledby=LIST_ID>
            <div class="list-head">
                <h2 id=LIST_ID tabindex="-1">"Notifications"</h2>
                <Unread/>
            </div>
            <div class="new-place">
                {part(move || fresh().map(|_| String::new()), move |_| {
                    view! {
                        <button class="new" data-testid="new" on:click=press(back)>
                            {words(move || Some(format!("{} new", fresh()?)))}
                        </button>
                    }
                    .into_any()
                })}
            </div>
            {part(move || rows.read().is_empty().then(String::new), |_| view! { <Empty/> }.into_any())}
            <ol class="rows">
                {each(move || rows.get(), move |slot| row(viewer, slot))}
            </ol>
        </section>
    }
}

/// A row that later items replace keeps its place, and its content changes.
fn row(viewer: Viewer, slot: u64) -> AnyView {
    match viewer.inbox.read_untracked().rows().at(slot).cloned() {
        Some(Row::Item(item)) => view! { <ItemRow item/> }.into_any(),
        Some(Row::Sent(message)) => view! { <SentRow message/> }.into_any(),
        Some(Row::Gap { reason, audience, .. }) => view! { <GapRow reason audience/> }.into_any(),
        // The row was removed between two frames.
        None => ().into_any(),
    }
}

/// The number of unread items, and a button that marks them as read.
#[component]
fn Unread() -> impl IntoView {
    let viewer = Viewer::here();
    let count = move || count_words(to_show(&viewer.inbox.read()));
    let read = move || viewer.act(Event::ReadAll);
    part(
        move || count().map(|_| String::new()),
        move |_| {
            view! {
            <p class="unread" data-testid="unread">{words(move || Some(format!("{} unread", count()?)))}</p>
            <button class="small" data-testid="read-all" on:click=press(read)>"Mark all read"</button>
        }
        .into_any()
        },
    )
}

#[component]
fn ItemRow(item: Arc<Item>) -> impl IntoView {
    let viewer = Viewer::here();
    let latest = latest(viewer, item);
    let unread = move || {
        // A memo that is only tracked is never computed, and notifies no effect.
        drop(viewer.read_to.read());
        viewer.inbox.read_untracked().is_unread(&latest.read())
    };
    view! {
        <li
            class="row"
            data-testid="row"
            data-id=words(move || Some(latest.read().id.clone()))
            data-severity=words(move || Some(latest.read().severity.as_str()))
            data-unread=mark(unread)
            data-from=words(move || latest.read().sender.clone())
            data-job=words(move || Some(latest.read().job.as_ref()?.status.as_str()))
        >
            <div class="card">
                {part(move || Some(latest.get()), |item| view! { <Content item=Arc::clone(item)/> }.into_any())}
                <Progress item=Signal::derive(move || Some(latest.get()))/>
            </div>
        </li>
    }
    .into_any()
}

/// Returns the item that has replaced this one. Only an item with a collapse key is ever replaced.
fn latest(viewer: Viewer, item: Arc<Item>) -> Signal<Arc<Item>> {
    if !item.collapses() {
        return Signal::stored(item);
    }
    let slot = item.slot;
    Memo::new(move |before: Option<&Arc<Item>>| {
        let found = viewer.inbox.read().rows().at(slot).and_then(Row::item).cloned();
        found.unwrap_or_else(|| Arc::clone(before.unwrap_or(&item)))
    })
    .into()
}

#[component]
fn Content(item: Arc<Item>) -> impl IntoView {
    let (heading, body, action) = (item.heading(), item.body.clone(), item.action.clone());
    let sender = item.sender.clone();
    view! {
        <Mark item=Arc::clone(&item)/>
        <div class="content">
            {(!heading.is_empty()).then(|| view! { <h3 dir="auto">{heading}</h3> })}
            {(!body.is_empty()).then(|| view! { <Body body/> })}
            {action.map(|action| view! { <ActionLink action/> })}
            {sender.map(|sender| view! { <Answer sender/> })}
        </div>
        <Meta item/>
    }
}

/// The button that starts an answer.
#[component]
fn Answer(sender: String) -> impl IntoView {
    let viewer = Viewer::here();
    let to = sender.clone();
    view! {
        <button class="fold" data-testid="answer" on:click=press(move || viewer.answer_to.set(to.clone()))>
            "Answer" <span class="unseen">" " {sender}</span>
        </button>
    }
}

/// The text of a row; a long one is folded, and a button shows all of it.
#[component]
fn Body(body: String) -> impl IntoView {
    let long = body.chars().count() > FOLD_ABOVE_CHARS || body.lines().count() > FOLD_ABOVE_LINES;
    let folded = RwSignal::new(long);
    let label = words(move || Some(if folded.get() { "Show all" } else { "Show less" }));
    view! {
        <p class="body" dir="auto" class:folded=folded>{body}</p>
        {long.then(|| view! {
            <button
                class="fold"
                aria-expanded=words(move || Some(!folded.get()))
                on:click=press(move || folded.set(!folded.get_untracked()))
            >
                {label}
            </button>
        })}
    }
}

#[component]
fn GapRow(reason: GapReason, audience: Option<Audience>) -> impl IntoView {
    view! {
        <li class="gap-row" data-testid="gap-row">
            <p>{gap_words(reason, audience.as_ref())}</p>
        </li>
    }
}

/// The link of a notification. Its target learns nothing about this page.
#[component]
pub fn ActionLink(action: Action) -> impl IntoView {
    let Action { label, url } = action;
    view! {
        <a class="action" href=url target="_blank" rel="noopener noreferrer" dir="auto">{label}</a>
    }
}

/// Scrolls to the newest row, and moves the focus there.
pub fn show_top() {
    if let Some(head) = head() {
        // The style sheet decides whether this scrolls smoothly or jumps.
        head.scroll_into_view();
    }
    focus();
}

/// Scrolls back up to the newest row.
pub fn leave_depth() {
    if let Some(head) = head().filter(|head| head.get_bounding_client_rect().top() < 0.0) {
        head.scroll_into_view();
    }
}

/// Moves the focus to the head of the list.
pub fn focus() {
    let options = web_sys::FocusOptions::new();
    options.set_prevent_scroll(true);
    if let Some(head) = head().and_then(|head| head.dyn_into::<web_sys::HtmlElement>().ok()) {
        drop(head.focus_with_options(&options));
    }
}

/// The head of the list.
pub fn head() -> Option<web_sys::Element> {
    document().get_element_by_id(LIST_ID)
}
