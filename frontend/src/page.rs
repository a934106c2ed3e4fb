//! The page. Stable hooks for tests, all as `data-testid`:
//!
//! | hook | further attributes |
//! | --- | --- |
//! | `pill` | `data-phase` `live` `connecting` `waiting` `offline` `stopped`; `data-replica` while live |
//! | `toast` | `data-id`, `data-severity`; `data-leaving` on its way out |
//! | `more` | the button that says how many toasts wait |
//! | `row` | a row of the list: `data-id`, `data-severity` |
//! | `gap-row` | the place in the list where some are missing |
//! | `new` | the button that says how many came while someone reads further down |
//! | `race-bar` | `data-replica`, `data-count`; `data-quiet` when it has won nothing for long |
//! | `notice` | `data-missed`; `data-gap` when older ones are gone |
//! | `empty` | what the list shows while there is nothing in it |
//! | `theme` | the button for light and dark |
//! | `announcer-polite`, `announcer-assertive` | what a screen reader hears |

use carillon_protocol::Phase;
use leptos::ev;
use leptos::prelude::*;

use crate::icon::Bell;
use crate::list::List;
use crate::notice::NoticeLine;
use crate::pill::Pill;
use crate::race::RaceTable;
use crate::theme::ThemeButton;
use crate::toast::{Toasts, escape};
use crate::viewer::Viewer;

/// Everything on the screen.
#[component]
pub fn Page() -> impl IntoView {
    let viewer = Viewer::start();
    let _ = window_event_listener(ev::keydown, move |event| {
        if event.key() == "Escape" {
            escape(viewer);
        }
    });
    count_in_title(viewer);
    view! {
        <div class="page">
            <div class="side">
                <header>
                    <h1><Bell/> "Carillon"</h1>
                    <ThemeButton/>
                    <Sentence/>
                </header>
                <div class="status">
                    <Pill/>
                    <NoticeLine/>
                </div>
                <RaceTable/>
            </div>
            <Toasts/>
            <main>
                <List/>
            </main>
        </div>
    }
}

/// What is happening.
#[component]
fn Sentence() -> impl IntoView {
    let viewer = Viewer::here();
    let replicas = Memo::new(move |_| viewer.inbox.with(|inbox| inbox.race().standings(0).len()));
    view! { <p class="sentence">{move || sentence(replicas.get())}</p> }
}

fn sentence(replicas: usize) -> String {
    let who = match replicas {
        0 => "Replicas race",
        1 => "One replica races",
        2 => "Two replicas race",
        3 => "Three replicas race",
        4 => "Four replicas race",
        5 => "Five replicas race",
        _ => "Many replicas race",
    };
    format!("{who} for every bell; everyone hears each one once.")
}

/// Counts in the window's title what comes while nobody looks.
fn count_in_title(viewer: Viewer) {
    let seen = StoredValue::new(0);
    let total = move || viewer.inbox.with_untracked(|inbox| inbox.race().total());
    let tell = move || {
        if !document().hidden() {
            seen.set_value(total());
        }
        let unseen = total() - seen.get_value();
        let title = if unseen == 0 { "Carillon".to_owned() } else { format!("({unseen}) Carillon") };
        if document().title() != title {
            document().set_title(&title);
        }
    };
    let _ = window_event_listener(ev::visibilitychange, move |_| tell());
    set_interval(tell, std::time::Duration::from_secs(1));
    // A page that is restored from the browser's memory has not been told that it is looked at again.
    let _ = window_event_listener(ev::pageshow, move |_| {
        if !matches!(viewer.phase.get_untracked(), Phase::Live { .. }) {
            viewer.command(crate::connection::Command::Seen);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_counts_the_replicas() {
        assert_eq!(sentence(3), "Three replicas race for every bell; everyone hears each one once.");
    }
}
