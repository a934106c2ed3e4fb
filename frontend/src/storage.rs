//! What a browser keeps for the page. One that keeps nothing, or has no room, is as good as a new one.

use leptos::prelude::window;

/// For how long something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Until this tab is closed; no other tab sees it.
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

    /// What is kept under a key.
    #[must_use]
    pub fn read(self, key: &str) -> Option<String> {
        self.storage()?.get_item(key).ok().flatten()
    }

    /// Keeps a text under a key, or nothing any more.
    pub fn write(self, key: &str, text: Option<&str>) {
        let Some(storage) = self.storage() else { return };
        let _ = match text {
            Some(text) => storage.set_item(key, text),
            None => storage.remove_item(key),
        };
    }
}
