use carillon_protocol::{Audience, GapReason};
use leptos::prelude::*;

use crate::icon::Cross;
use crate::inbox::{Event, Notice};
use crate::live::{part, press};
use crate::viewer::Viewer;
use crate::words::grouped;

/// Describes a gap for a reader.
pub fn gap_words(reason: GapReason, audience: Option<&Audience>) -> String {
    let which = match audience {
        None => "Older ones".to_owned(),
        Some(Audience::Everyone) => "Older ones for everyone".to_owned(),
        Some(Audience::Topic(topic)) => format!("Older ones of “{topic}”"),
        Some(_) => "Older ones for you".to_owned(),
    };
    let why = match reason {
        GapReason::Trimmed => "you were away longer than they are kept",
        GapReason::Epoch => "the server has new data",
        GapReason::Unreadable => "the server cannot tell where you were",
    };
    format!("{which} are gone: {why}")
}

fn words(notice: Notice) -> String {
    let missed = match notice.missed {
        0 => None,
        missed => Some(format!("{} while you were away", grouped(missed.into()))),
    };
    // The list shows where and why.
    let gap = notice.gap.map(|_| "Older ones are gone".to_owned());
    missed.into_iter().chain(gap).collect::<Vec<_>>().join(". ")
}

/// The line under the pill: the number of missed notifications, and whether some are missing for good. Its place is kept
/// free, so that nothing moves when it appears.
#[component]
pub fn NoticeLine() -> impl IntoView {
    let viewer = Viewer::here();
    let close = move || viewer.act(Event::NoticeClosed);
    let notice = part(
        move || viewer.inbox.read().notice(),
        move |notice| {
            view! {
                <div
                    class="notice"
                    data-testid="notice"
                    data-missed=notice.missed.to_string()
                    data-gap=notice.gap.map(|_| "")
                >
                    <p>{words(*notice)}</p>
                    <button class="close" aria-label="Close" on:click=press(close)>
                        <Cross/>
                    </button>
                </div>
            }
            .into_any()
        },
    );
    view! { <div class="notice-place" role="status">{notice}</div> }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_names_its_audience() {
        for (audience, begins) in [
            (None, "Older ones are gone: you were away longer than they are kept"),
            (Some(Audience::Topic("news".into())), "Older ones of “news” are gone"),
            (Some(Audience::User("ann".into())), "Older ones for you are gone"),
        ] {
            let words = gap_words(GapReason::Trimmed, audience.as_ref());
            assert!(words.starts_with(begins), "{words}");
        }
    }

    #[test]
    fn shows_what_was_missed_and_what_is_gone() {
        let shown = |missed, gap| words(Notice { missed, gap });
        assert_eq!(shown(1_200, None), "1,200 while you were away");
        assert_eq!(shown(2, Some(GapReason::Epoch)), "2 while you were away. Older ones are gone");
        assert_eq!(shown(0, Some(GapReason::Trimmed)), "Older ones are gone");
    }
}
