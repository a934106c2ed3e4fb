use std::sync::Arc;

use carillon_protocol::Severity;
use leptos::ev::{FocusEvent, MouseEvent};
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::icon::Cross;
use crate::inbox::{Event, Hold, Item, Toast};
use crate::list;
use crate::live::{each, mark, on, part, press, words};
use crate::meta::{Mark, Meta, Progress};
use crate::viewer::Viewer;

/// The toasts, oldest first, so that a new one moves no other.
#[component]
pub fn Toasts() -> impl IntoView {
    let viewer = Viewer::here();
    let slots = Memo::new(move |_| {
        viewer.inbox.read().stack().visible().iter().map(|one| one.item.slot).collect::<Vec<u64>>()
    });
    let more = Memo::new(move |_| {
        let more = viewer.inbox.read().stack().more();
        (more > 0).then(|| format!("+{more} more"))
    });
    let show_more = move || {
        viewer.act(Event::More);
        list::show_top();
    };
    view! {
        <section
            class="toasts"
            aria-label="New"
            data-held=mark(move || viewer.inbox.read().stack().held())
            on:pointerenter=on(move |_| viewer.act(Event::Held(Hold::Pointer, true)))
            on:pointerleave=on(move |_| viewer.act(Event::Held(Hold::Pointer, false)))
            on:focusin=on(move |event: FocusEvent| {
                viewer.act(Event::Held(Hold::Focus, by_keyboard(event.target())));
            })
            on:focusout=on(move |_| viewer.act(Event::Held(Hold::Focus, false)))
        >
            <ol>
                {each(move || slots.get(), |slot| view! { <ToastCard place=slot/> }.into_any())}
            </ol>
            {part(move || more.read().is_some().then(String::new), move |_| {
                view! {
                    <button class="more" data-testid="more" on:click=press(show_more)>
                        {words(move || more.get())}
                    </button>
                }
                .into_any()
            })}
        </section>
        <Announcer assertive=false/>
        <Announcer assertive=true/>
    }
}

#[component]
fn ToastCard(place: u64) -> impl IntoView {
    let slot = place;
    let viewer = Viewer::here();
    let toast = Memo::new(move |_| find(viewer, slot));
    let item = Memo::new(move |_| toast.read().as_ref().map(|toast| Arc::clone(&toast.item)));
    let life = move || {
        let toast = toast.read();
        toast.as_ref().filter(|toast| !toast.item.is_running()).map(|toast| toast.lives % 2)
    };
    let close = move |event: MouseEvent| {
        // A mouse click that closed a toast must not hold the others by its focus.
        leave(slot, event.detail() == 0);
        viewer.act(Event::Closed(slot));
    };
    view! {
        <li
            class="toast"
            data-testid="toast"
            data-slot=slot
            data-id=words(move || Some(item.read().as_ref()?.id.clone()))
            data-severity=words(move || Some(item.read().as_ref()?.severity.as_str()))
            data-leaving=mark(move || toast.read().as_ref().is_some_and(Toast::leaving))
            data-from=words(move || item.read().as_ref()?.sender.clone())
            data-job=words(move || Some(item.read().as_ref()?.job.as_ref()?.status.as_str()))
            // The class alternates, so that the style sheet restarts the hairline. A running job shows its progress.
            data-life=words(life)
        >
            <div class="card">
                {part(move || item.get(), |item| view! { <Content item=Arc::clone(item)/> }.into_any())}
                <Progress item=item.into()/>
                <button class="close" aria-label="Close" on:click=on(close)>
                    <Cross/>
                </button>
                <span class="hairline" aria-hidden="true"></span>
            </div>
        </li>
    }
}

/// The content of a toast. All of it is text and none of it is markup.
#[component]
fn Content(item: Arc<Item>) -> impl IntoView {
    let (heading, body, action) = (item.heading(), item.body.clone(), item.action.clone());
    view! {
        <Mark item=Arc::clone(&item)/>
        <div class="content">
            {(!heading.is_empty()).then(|| view! { <h3 dir="auto">{heading}</h3> })}
            {(!body.is_empty()).then(|| view! { <p class="body" dir="auto">{body}</p> })}
            <Meta item=Arc::clone(&item)/>
            {action.map(|action| view! { <list::ActionLink action/> })}
        </div>
    }
}

/// Announces the toasts to screen readers: errors at once, all others at the next pause.
#[component]
fn Announcer(assertive: bool) -> impl IntoView {
    let viewer = Viewer::here();
    let announced = Memo::new(move |_| {
        let inbox = viewer.inbox.read();
        let ours = inbox.stack().visible().iter();
        let ours = ours.filter(|toast| (toast.item.severity == Severity::Error) == assertive);
        ours.map(|toast| toast.announcement).collect::<Vec<u64>>()
    });
    let announce = move |announced| {
        let inbox = viewer.inbox.read_untracked();
        let toast = inbox.stack().visible().iter().find(|toast| toast.announcement == announced);
        toast.map(|toast| view! { <p>{toast.item.words()}</p> }).into_any()
    };
    view! {
        <div
            class="unseen"
            aria-live=if assertive { "assertive" } else { "polite" }
            data-testid=if assertive { "announcer-assertive" } else { "announcer-polite" }
        >
            {each(move || announced.get(), announce)}
        </div>
    }
}

/// Closes the newest toast.
pub fn escape(viewer: Viewer) {
    let newest = viewer.inbox.read_untracked().stack().newest();
    if let Some(slot) = newest {
        leave(slot, true);
        viewer.act(Event::Escaped);
    }
}

fn find(viewer: Viewer, slot: u64) -> Option<Toast> {
    viewer.inbox.read().stack().visible().iter().find(|toast| toast.item.slot == slot).cloned()
}

/// Moves the focus from a toast that leaves to the next one, or to the one before, or else to the list. The focus of a
/// pointer is dropped.
fn leave(slot: u64, keyboard: bool) {
    let card = document().query_selector(&format!(".toast[data-slot='{slot}']")).ok().flatten();
    let Some((card, active)) = card.zip(document().active_element()) else { return };
    if !card.contains(Some(&active)) {
        return;
    }
    if !keyboard {
        focus_on(&active, |active| drop(active.blur()));
        return;
    }
    let neighbours = [card.next_element_sibling(), card.previous_element_sibling()];
    let staying = neighbours.into_iter().flatten().find(|one| !one.has_attribute("data-leaving"));
    match staying.and_then(|one| one.query_selector(".close").ok().flatten()) {
        Some(close) => focus_on(&close, |close| drop(close.focus())),
        None => list::focus(),
    }
}

fn focus_on(element: &web_sys::Element, act: impl FnOnce(&web_sys::HtmlElement)) {
    if let Some(element) = element.dyn_ref::<web_sys::HtmlElement>() {
        act(element);
    }
}

fn by_keyboard(target: Option<web_sys::EventTarget>) -> bool {
    let element = target.and_then(|target| target.dyn_into::<web_sys::Element>().ok());
    element.is_some_and(|element| element.matches(":focus-visible").unwrap_or(true))
}
