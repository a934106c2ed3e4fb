//! The viewer: connection → inbox → toast. See `inbox.rs` for what it shows, `connection.rs` for how it stays connected, and
//! `page.rs` for how it looks and for the hooks of tests.

pub mod access;
pub mod account;
pub mod batch;
pub mod clock;
pub mod composer;
pub mod connection;
pub mod controls;
pub mod empty;
pub mod history;
pub mod http;
pub mod icon;
pub mod id;
pub mod inbox;
pub mod job;
pub mod list;
pub mod live;
pub mod looking;
pub mod message;
pub mod meta;
pub mod notice;
pub mod page;
pub mod pill;
pub mod place;
pub mod race;
pub mod reports;
pub mod storage;
pub mod theme;
pub mod title;
pub mod toast;
pub mod viewer;
pub mod words;

use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::wasm_bindgen;

/// The element of `index.html` with the content that is shown while this loads.
const PLACE_ID: &str = "viewer";

/// Replaces that content with the page.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
    let place = leptos::prelude::document().get_element_by_id(PLACE_ID);
    if let Some(place) = place.and_then(|place| place.dyn_into::<web_sys::HtmlElement>().ok()) {
        place.set_text_content(None);
        leptos::mount::mount_to(place, page::Page).forget();
    }
}
