use leptos::prelude::*;

use crate::icon::HalfMoon;
use crate::live::press;

/// The storage key of the choice; `theme.js` reads it before the first paint.
const STORAGE_KEY: &str = "carillon-theme";

/// Light or dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    Light,
    Dark,
}

impl Theme {
    fn other(self) -> Self {
        match self {
            Self::Light => Self::Dark,
            Self::Dark => Self::Light,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// The theme that the device prefers.
    fn of_device() -> Self {
        let query = window().match_media("(prefers-color-scheme: dark)").ok().flatten();
        if query.is_some_and(|query| query.matches()) { Self::Dark } else { Self::Light }
    }

    /// The theme of the page.
    fn shown() -> Self {
        match document().document_element().and_then(|root| root.get_attribute("data-theme")).as_deref() {
            Some("light") => Self::Light,
            Some("dark") => Self::Dark,
            _ => Self::of_device(),
        }
    }

    /// Shows the theme, and stores it unless the device prefers it anyway.
    fn show(self) {
        let own = (self != Self::of_device()).then_some(self.as_str());
        let root = document().document_element();
        let storage = window().local_storage().ok().flatten();
        // Without storage, the choice lasts until the page is left.
        let _ = match own {
            Some(name) => (
                root.map(|root| root.set_attribute("data-theme", name)),
                storage.map(|storage| storage.set_item(STORAGE_KEY, name)),
            ),
            None => (
                root.map(|root| root.remove_attribute("data-theme")),
                storage.map(|storage| storage.remove_item(STORAGE_KEY)),
            ),
        };
    }
}

/// The button that switches to the other theme. Once it is the device's preference again, the page follows the device.
#[component]
pub fn ThemeButton() -> impl IntoView {
    view! {
        <button
            class="theme"
            data-testid="theme"
            aria-label="Light or dark"
            title="Light or dark"
            on:click=press(|| Theme::shown().other().show())
        >
            <HalfMoon/>
        </button>
    }
}
