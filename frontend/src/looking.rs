//! Whether somebody looks, and what the window has room for.

use leptos::prelude::*;

use crate::connection::Command;
use crate::inbox::{Event, VISIBLE_MAX_TOASTS};
use crate::list;
use crate::live::{at_window, next_frame};
use crate::place::Place;
use crate::viewer::Viewer;

/// The list counts as left when its head is this far above the window, in pixels.
const AWAY_ABOVE_PX: f64 = -24.0;
/// What a toast takes, with the space around it, in pixels.
const TOAST_PX: f64 = 100.0;
/// From this width on toasts stand beside the list, above the controls; the style sheet says the same.
const WIDE_PX: f64 = 1_248.0;
/// What the controls take there, with the space around them, in pixels.
const CONTROLS_PX: f64 = 310.0;
/// What toasts may cover elsewhere, of the window's height.
const COVERED_MAX: f64 = 0.6;

/// Tells the inbox who looks at what, from now on.
pub fn watch(viewer: Viewer) {
    let told = StoredValue::new(None);
    let look = move || {
        let seen = (is_looked_at(), is_away(), places());
        let before = told.get_value();
        told.set_value(Some(seen));
        let (looking, away, places) = seen;
        if before.is_none_or(|(old, ..)| old != looking) {
            viewer.act(Event::Looking(looking));
        }
        if before.is_none_or(|(_, old, _)| old != away) {
            viewer.act(Event::Away(away));
        }
        if before.is_none_or(|(.., old)| old != places) {
            viewer.act(Event::Places(places));
        }
    };
    for event in ["scroll", "resize", "focus", "blur", "pageshow"] {
        at_window(event, move |_| look());
    }
    at_window("visibilitychange", move |_| {
        look();
        if document().hidden() {
            Place::keep(&viewer.inbox.read_untracked());
        } else {
            viewer.command(Command::Seen);
        }
    });
    at_window("pagehide", move |_| Place::keep(&viewer.inbox.read_untracked()));
    // A page that is restored from the browser's memory has not been told that it is looked at again.
    at_window("pageshow", move |_| viewer.command(Command::Seen));
    next_frame(look);
}

fn is_looked_at() -> bool {
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
