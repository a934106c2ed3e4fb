use leptos::prelude::*;

use crate::icon::HalfMoon;
use crate::live::press;

/// Where the choice is kept; `theme.js` reads it before the first paint.
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

    /// What the device asks for.
    fn of_device() -> Self {
        let query = window().match_media("(prefers-color-scheme: dark)").ok().flatten();
        if query.is_some_and(|query| query.matches()) { Self::Dark } else { Self::Light }
    }

    /// What the page shows.
    fn shown() -> Self {
        match document().document_element().and_then(|root| root.get_attribute("data-theme")).as_deref() {
            Some("light") => Self::Light,
            Some("dark") => Self::Dark,
            _ => Self::of_device(),
        }
    }

    /// Shows it, and remembers it where it is not what the device asks for anyway.
    fn show(self) {
        let own = (self != Self::of_device()).then_some(self.as_str());
        let root = document().document_element();
        let storage = window().local_storage().ok().flatten();
        // A browser that keeps nothing shows the choice until the page is left.
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

/// Turns to the other theme. Turned back to what the device asks for, the page follows the device again.
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
