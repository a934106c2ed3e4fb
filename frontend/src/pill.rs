use carillon_protocol::{CloseCode, Phase};
use leptos::prelude::*;

use crate::clock::Now;
use crate::connection::Command;
use crate::live::{part, press, words};
use crate::viewer::Viewer;
use crate::words::seconds_left;

/// The words of the pill.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Words {
    phase: &'static str,
    /// The part that stays the same while seconds pass, which is announced.
    word: String,
    /// The remaining seconds.
    countdown: Option<String>,
    replica: Option<String>,
    button: Option<&'static str>,
}

fn words_of(phase: &Phase, refusal: Option<&str>, now: Now) -> Words {
    let plain = |phase: &'static str, word: &str| Words {
        phase,
        word: word.to_owned(),
        countdown: None,
        replica: None,
        button: None,
    };
    match phase {
        Phase::Connecting { .. } => plain("connecting", "Connecting"),
        Phase::Live { replica, .. } => Words { replica: Some(replica.clone()), ..plain("live", "Live") },
        Phase::Waiting { until_ms } => Words {
            countdown: Some(format!("in {} s", seconds_left(*until_ms, now.ms))),
            button: Some("Now"),
            ..plain("waiting", "Reconnecting")
        },
        Phase::Offline => {
            Words { button: Some("Try"), ..plain("offline", "Offline: your device has no network") }
        }
        Phase::Stopped { code } => {
            let reason = refusal.unwrap_or_else(|| reason(*code));
            Words { button: Some("Try again"), ..plain("stopped", &format!("Stopped: {reason}")) }
        }
    }
}

/// Describes why the server closed for good.
fn reason(code: CloseCode) -> &'static str {
    match code {
        CloseCode::REFUSED => "you are not allowed in",
        CloseCode::LIMIT => "the server has a limit here",
        CloseCode::BAD_MESSAGE => "the server could not read this page",
        _ => "the server and this page do not understand each other",
    }
}

/// Dot, word and replica, and a button where there is something to do.
#[component]
pub fn Pill() -> impl IntoView {
    let viewer = Viewer::here();
    let shown = Memo::new(move |_| {
        let now = viewer.now.get();
        words_of(&viewer.phase.read(), viewer.refusal.read().as_deref(), now)
    });
    let replica = move || shown.read().replica.clone();
    let button = part(
        move || shown.read().button,
        move |label| {
            view! {
            <button class="small" on:click=press(move || viewer.command(Command::Connect))>{*label}</button>
        }
        .into_any()
        },
    );
    view! {
        <div
            class="pill"
            data-testid="pill"
            data-phase=words(move || Some(shown.read().phase))
            data-replica=words(replica)
        >
            <span class="dot" aria-hidden="true"></span>
            <p class="pill-words">
                <span role="status">
                    {words(move || Some(shown.read().word.clone()))}
                    {part(replica, |name| view! { <b>" · " <bdi>{name.clone()}</bdi></b> }.into_any())}
                </span>
                {words(move || Some(format!(" {}", shown.read().countdown.as_ref()?)))}
            </p>
            {button}
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(phase: &Phase, refusal: Option<&str>) -> (String, Option<&'static str>) {
        let words = words_of(phase, refusal, Now { ms: 1_000, wall_ms: 0 });
        let parts = [Some(words.word), words.replica, words.countdown];
        (parts.into_iter().flatten().collect::<Vec<_>>().join(" "), words.button)
    }

    #[test]
    fn shows_the_phase_and_what_to_do() {
        let replica = "bff-2".to_owned();
        for (phase, expected, button) in [
            (Phase::Connecting { since_ms: 0 }, "Connecting", None),
            (Phase::Live { since_ms: 0, replica }, "Live bff-2", None),
            (Phase::Waiting { until_ms: 3_500 }, "Reconnecting in 3 s", Some("Now")),
            (Phase::Waiting { until_ms: 900 }, "Reconnecting in 1 s", Some("Now")),
            (Phase::Offline, "Offline: your device has no network", Some("Try")),
            (
                Phase::Stopped { code: CloseCode::REFUSED },
                "Stopped: you are not allowed in",
                Some("Try again"),
            ),
        ] {
            assert_eq!(shown(&phase, None), (expected.to_owned(), button));
        }
        let refused = shown(&Phase::Stopped { code: CloseCode::LIMIT }, Some("64 topics at most"));
        assert_eq!(refused.0, "Stopped: 64 topics at most");
    }
}
