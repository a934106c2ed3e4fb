//! Whether the page and the head of the list are visible, and how many toasts the window has room for.

use leptos::prelude::*;

use crate::connection::Command;
use crate::inbox::{Event, VISIBLE_MAX_TOASTS};
use crate::list;
use crate::live::{at_window, next_frame};
use crate::place::Place;
use crate::viewer::Viewer;

/// The user counts as scrolled down when the head of the list is this far above the window, in pixels.
const AWAY_ABOVE_PX: f64 = -24.0;
/// The height of a toast with its margin, in pixels.
const TOAST_PX: f64 = 100.0;
/// From this width on toasts are beside the list, above the controls; the style sheet has the same.
const WIDE_PX: f64 = 1_248.0;
/// The height of the controls there with their margin, in pixels.
const CONTROLS_PX: f64 = 310.0;
/// The share of the window's height that toasts may cover elsewhere.
const COVERED_MAX: f64 = 0.6;

/// Reports visibility and scrolling to the inbox from now on.
pub fn watch(viewer: Viewer) {
    let reported = StoredValue::new(None);
    let report = move || {
        let seen = (is_visible(), is_away(), places());
        let before = reported.get_value();
        reported.set_value(Some(seen));
        let (looking, away, places) = seen;
        if before.is_none_or(|(old, ..)| old != looking) {
            viewer.act(Event::Visible(looking));
        }
        if before.is_none_or(|(_, old, _)| old != away) {
            viewer.act(Event::Away(away));
        }
        if before.is_none_or(|(.., old)| old != places) {
            viewer.act(Event::Places(places));
        }
    };
    for event in ["scroll", "resize", "focus", "blur", "pageshow"] {
        at_window(event, move |_| report());
    }
    at_window("visibilitychange", move |_| {
        report();
        if document().hidden() {
            Place::keep(&viewer.inbox.read_untracked());
        } else {
            viewer.command(Command::Seen);
        }
    });
    at_window("pagehide", move |_| Place::keep(&viewer.inbox.read_untracked()));
    // A page that is restored from the browser's cache gets no event that it is visible again.
    at_window("pageshow", move |_| viewer.command(Command::Seen));
    next_frame(report);
}

fn is_visible() -> bool {
    let focused = document().has_focus().unwrap_or(true);
    let top = list::head().map(|head| head.get_bounding_client_rect().top());
    !document().hidden() && focused && top.is_some_and(|top| top < height())
}

fn is_away() -> bool {
    list::head().is_some_and(|head| head.get_bounding_client_rect().top() < AWAY_ABOVE_PX)
}

fn places() -> usize {
    let wide = pixels(window().inner_width()) >= WIDE_PX;
    let room = if wide { height() - CONTROLS_PX } else { height() * COVERED_MAX };
    (1..VISIBLE_MAX_TOASTS)
        .rev()
        .map(|less| less + 1)
        .find(|&count| whole(count) * TOAST_PX <= room)
        .unwrap_or(1)
}

fn height() -> f64 {
    pixels(window().inner_height())
}

fn pixels(value: Result<wasm_bindgen::JsValue, wasm_bindgen::JsValue>) -> f64 {
    value.ok().and_then(|value| value.as_f64()).unwrap_or_default()
}

fn whole(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
