use std::sync::Arc;

use carillon_protocol::Severity;
use leptos::ev::MouseEvent;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::icon::{Cross, SeverityIcon};
use crate::inbox::{Event, Hold, Item, Toast};
use crate::list;
use crate::meta::Meta;
use crate::viewer::Viewer;

/// The toasts, oldest first, so that a new one moves none of the others.
#[component]
pub fn Toasts() -> impl IntoView {
    let viewer = Viewer::here();
    let slots = Memo::new(move |_| {
        viewer.inbox.with(|inbox| inbox.stack().visible().iter().map(|one| one.item.slot).collect::<Vec<_>>())
    });
    let held = Memo::new(move |_| viewer.inbox.with(|inbox| inbox.stack().held()));
    let more = Memo::new(move |_| viewer.inbox.with(|inbox| inbox.stack().more()));
    let show_more = move |_| {
        viewer.act(Event::More);
        list::show_top();
    };
    view! {
        <section
            class="toasts"
            aria-label="New"
            data-held=move || held.get().then_some("")
            on:pointerenter=move |_| viewer.act(Event::Held(Hold::Pointer, true))
            on:pointerleave=move |_| viewer.act(Event::Held(Hold::Pointer, false))
            on:focusin=move |event| viewer.act(Event::Held(Hold::Focus, by_keyboard(event.target())))
            on:focusout=move |_| viewer.act(Event::Held(Hold::Focus, false))
        >
            <ol>
                <For each=move || slots.get() key=|slot| *slot let:slot>
                    <ToastCard place=slot/>
                </For>
            </ol>
            <Show when=move || { more.get() > 0 }>
                <button class="more" data-testid="more" on:click=show_more>
                    {move || format!("+{} more", more.get())}
                </button>
            </Show>
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
    let item = Memo::new(move |_| toast.with(|toast| toast.as_ref().map(|toast| Arc::clone(&toast.item))));
    let severity = move || item.with(|item| item.as_ref().map(|item| item.severity.as_str()));
    let close = move |event: MouseEvent| {
        // A mouse that has closed a toast must not hold the others by the focus it leaves behind.
        leave(slot, event.detail() == 0);
        viewer.act(Event::Closed(slot));
    };
    view! {
        <li
            class="toast"
            data-testid="toast"
            data-slot=slot
            data-id=move || item.with(|item| item.as_ref().map(|item| item.id.clone()))
            data-severity=severity
            data-leaving=move || toast.with(|toast| toast.as_ref().is_some_and(Toast::leaving)).then_some("")
            // Alternates, so that the style sheet starts the hairline anew.
            data-life=move || toast.with(|toast| toast.as_ref().map(|toast| toast.lives % 2))
        >
            <div class="card">
                {move || item.get().map(|item| view! { <Content item/> })}
                <button class="close" aria-label="Close" on:click=close>
                    <Cross/>
                </button>
                <span class="hairline" aria-hidden="true"></span>
            </div>
        </li>
    }
}

/// What a toast says. All of it is text; none of it is read as markup.
#[component]
fn Content(item: Arc<Item>) -> impl IntoView {
    let Item { title, body, action, severity, .. } = (*item).clone();
    view! {
        <SeverityIcon severity/>
        <div class="content">
            {(!title.is_empty()).then(|| view! { <h3 dir="auto">{title}</h3> })}
            {(!body.is_empty()).then(|| view! { <p class="body" dir="auto">{body}</p> })}
            <Meta item=Arc::clone(&item)/>
            {action.map(|action| view! { <list::ActionLink action/> })}
        </div>
    }
}

/// Says what is on the screen to those who don't see it: errors at once, all else when there is a pause.
#[component]
fn Announcer(assertive: bool) -> impl IntoView {
    let viewer = Viewer::here();
    let words = Memo::new(move |_| {
        viewer.inbox.with(|inbox| {
            let toasts = inbox.stack().visible().iter();
            let ours = toasts.filter(|toast| (toast.item.severity == Severity::Error) == assertive);
            ours.map(|toast| (toast.item.slot, toast.item.words())).collect::<Vec<_>>()
        })
    });
    view! {
        <div
            class="unseen"
            aria-live=if assertive { "assertive" } else { "polite" }
            data-testid=if assertive { "announcer-assertive" } else { "announcer-polite" }
        >
            <For each=move || words.get() key=Clone::clone let:said>
                <p>{said.1}</p>
            </For>
        </div>
    }
}

/// Closes the newest toast.
pub fn escape(viewer: Viewer) {
    if let Some(slot) = viewer.inbox.with_untracked(|inbox| inbox.stack().newest()) {
        leave(slot, true);
        viewer.act(Event::Escaped);
    }
}

fn find(viewer: Viewer, slot: u64) -> Option<Toast> {
    viewer.inbox.with(|inbox| inbox.stack().visible().iter().find(|toast| toast.item.slot == slot).cloned())
}

/// Takes the focus away from a toast that goes: to the next one, or to the one before, or, where there
/// is none, to the list. A pointer's focus is simply dropped.
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
