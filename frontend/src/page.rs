//! The page. Stable hooks for tests, all as `data-testid`:
//!
//! | hook | further attributes |
//! | --- | --- |
//! | `pill` | `data-phase` `live` `connecting` `waiting` `offline` `stopped`; `data-replica` while live |
//! | `toast` | `data-id`, `data-severity`, `data-job`; `data-leaving` on its way out |
//! | `more` | the button with the number of toasts that wait |
//! | `row` | a row of the list: `data-id`, `data-severity`, `data-job` `queued` `running` `done` `failed`; `data-unread` |
//! | | of a message that was sent here: `data-id`, `data-status` `waiting` `none` `sent` `delivered` `read` `failed` |
//! | `retry` | sends a message that was refused again |
//! | `answer` | begins an answer to the sender of a row |
//! | `unread`, `count` | how many are unread, at the list and at the bell; also in the window's title |
//! | `read-all` | marks all of them as read |
//! | `run-job` | starts a job |
//! | `sign-in`, `sign-in-form` | opens the form with a name (`user`) |
//! | `who` | who is signed in: `data-user` |
//! | `sign-out`, `ended` | signs out; the reason why the server signed the user out |
//! | `composer` | the form that sends a message: `to`, `text` |
//! | `gap-row` | the place in the list where some are missing |
//! | `new` | the button with the number that arrived while the user reads further down |
//! | `race-bar` | `data-replica`, `data-count`; `data-quiet` when it has won nothing for long |
//! | `notice` | `data-missed`; `data-gap` when older ones are gone |
//! | `empty` | what the list shows while there is nothing in it |
//! | `theme` | the button for light and dark |
//! | `announcer-polite`, `announcer-assertive` | the text for screen readers |

use leptos::ev::KeyboardEvent;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::controls::Controls;
use crate::icon::Bell;
use crate::list::List;
use crate::live::{at_window, words};
use crate::notice::NoticeLine;
use crate::pill::Pill;
use crate::race::RaceTable;
use crate::reports;
use crate::theme::ThemeButton;
use crate::title::{count_words, to_show};
use crate::toast::{Toasts, escape};
use crate::viewer::Viewer;

/// Everything on the screen.
#[component]
pub fn Page() -> impl IntoView {
    let viewer = reports::start();
    at_window("keydown", move |event| {
        if event.dyn_ref::<KeyboardEvent>().is_some_and(|event| event.key() == "Escape") {
            escape(viewer);
        }
    });
    view! {
        <div class="page">
            <div class="side">
                <header>
                    <h1><Bell/> "Carillon"</h1>
                    <Count/>
                    <ThemeButton/>
                </header>
                <Sentence/>
                <div class="status">
                    <Pill/>
                    <NoticeLine/>
                </div>
                <RaceTable/>
                <div class="tools">
                    <Controls/>
                    <Toasts/>
                </div>
            </div>
            <main>
                <List/>
            </main>
        </div>
    }
}

/// What the page shows, in a sentence.
#[component]
fn Sentence() -> impl IntoView {
    let viewer = Viewer::here();
    let replicas = Memo::new(move |_| viewer.inbox.read().race().standings(0).len());
    view! {
        <p class="sentence" data-room=sentence(LONGEST)>
            <span>{words(move || Some(sentence(replicas.get())))}</span>
        </p>
    }
}

/// The number of replicas with the longest sentence, whose room is kept for any sentence, in any font.
const LONGEST: usize = 3;

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
    format!("{who} for every bell; everyone receives each one once.")
}

/// The number of unread items, at the bell. The list has it for a screen reader.
#[component]
fn Count() -> impl IntoView {
    let viewer = Viewer::here();
    let count = words(move || count_words(to_show(&viewer.inbox.read())));
    view! { <span class="count" aria-hidden="true" data-testid="count">{count}</span> }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_counts_the_replicas() {
        assert_eq!(sentence(3), "Three replicas race for every bell; everyone receives each one once.");
        assert!((0..9).all(|replicas| sentence(replicas).len() <= sentence(LONGEST).len()));
        let first = include_str!("../index.html");
        assert!(
            first.contains(&sentence(0)) && first.contains(&sentence(LONGEST)),
            "it is there from the start"
        );
    }
}
