//! The browser's storage for the page. Without storage, or without room in it, a page starts like a new one.

use leptos::prelude::window;

/// How long a text is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Until this tab is closed, and for this tab alone.
    InTab,
    /// On this device, for all tabs.
    OnDevice,
}

impl Kept {
    fn storage(self) -> Option<web_sys::Storage> {
        match self {
            Self::InTab => window().session_storage(),
            Self::OnDevice => window().local_storage(),
        }
        .ok()
        .flatten()
    }

    /// Returns the text of a key.
    pub fn read(self, key: &str) -> Option<String> {
        self.storage()?.get_item(key).ok().flatten()
    }

    /// Stores a text under a key, or removes it.
    pub fn write(self, key: &str, text: Option<&str>) {
        let Some(storage) = self.storage() else { return };
        let _ = match text {
            Some(text) => storage.set_item(key, text),
            None => storage.remove_item(key),
        };
    }
}
