use carillon_protocol::GapReason;
use leptos::prelude::*;

use crate::icon::Cross;
use crate::inbox::{Event, Notice};
use crate::live::{part, press};
use crate::viewer::Viewer;
use crate::words::grouped;

/// What a gap means for a reader.
#[must_use]
pub fn gap_words(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Trimmed => "Older ones are gone: you were away longer than they are kept",
        GapReason::Epoch => "Older ones are gone: the server has begun anew",
    }
}

fn words(notice: Notice) -> String {
    let missed = match notice.missed {
        0 => None,
        missed => Some(format!("{} while you were away", grouped(missed.into()))),
    };
    // The list says where and why.
    let gap = notice.gap.map(|_| "Older ones are gone".to_owned());
    missed.into_iter().chain(gap).collect::<Vec<_>>().join(". ")
}

/// Under the pill: what was missed, and whether some of it is gone. Its place is kept free, so that
/// nothing moves when it comes.
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
    fn says_what_was_missed_and_what_is_gone() {
        let say = |missed, gap| words(Notice { missed, gap });
        assert_eq!(say(1_200, None), "1,200 while you were away");
        assert_eq!(say(2, Some(GapReason::Epoch)), "2 while you were away. Older ones are gone");
        assert_eq!(say(0, Some(GapReason::Trimmed)), "Older ones are gone");
    }
}
