//! The drawings, inline: each severity has its own shape, so that it does not depend on colour alone.

use carillon_protocol::Severity;
use leptos::prelude::*;

use crate::live::Words;

/// A drawing, whose parts are markup, so that no code has to be downloaded to build them.
#[component]
fn Drawing(class: &'static str, view_box: &'static str, size: &'static str, parts: String) -> impl IntoView {
    view! {
        <svg class=class viewBox=view_box width=size height=size aria-hidden="true" inner_html=parts></svg>
    }
}

/// A severity: a circle, a square, a triangle or an octagon.
#[component]
pub fn SeverityIcon(severity: Severity) -> impl IntoView {
    let (shape, sign) = match severity {
        Severity::Info => ("M10 1.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17Z", "M10 9.2v5M10 5.9v.1"),
        Severity::Success => (
            "M5.5 2h9A3.5 3.5 0 0 1 18 5.5v9a3.5 3.5 0 0 1-3.5 3.5h-9A3.5 3.5 0 0 1 2 14.5v-9A3.5 3.5 0 0 1 5.5 2Z",
            "m6.2 10.4 2.6 2.6 5-5.6",
        ),
        Severity::Warning => {
            ("M8.3 2.5a2 2 0 0 1 3.4 0l7 12.3a2 2 0 0 1-1.7 3H3a2 2 0 0 1-1.7-3Z", "M10 7.2v4.2M10 14.5v.1")
        }
        Severity::Error => {
            ("M6.7 1.8h6.6l4.9 4.9v6.6l-4.9 4.9H6.7l-4.9-4.9V6.7Z", "m7.2 7.2 5.6 5.6M12.8 7.2l-5.6 5.6")
        }
    };
    let parts = format!(r#"<path class="shape" d="{shape}"/><path class="sign" d="{sign}"/>"#);
    view! { <Drawing class="severity" view_box="0 0 20 20" size="20" parts/> }
}

/// A cross, to close.
#[component]
pub fn Cross() -> impl IntoView {
    let parts = r#"<path d="m4 4 8 8M12 4l-8 8"/>"#.to_owned();
    view! { <Drawing class="line-icon" view_box="0 0 16 16" size="16" parts/> }
}

/// A hanging bell, which swings about its crown.
#[component]
pub fn Bell() -> impl IntoView {
    view! { <Drawing class="bell" view_box="0 0 24 24" size="20" parts=format!(r#"<path d="{BELL}"/>"#)/> }
}

/// Half light, half dark.
#[component]
pub fn HalfMoon() -> impl IntoView {
    let parts = r#"<circle cx="10" cy="10" r="7"/><path class="half" d="M10 3a7 7 0 0 1 0 14Z"/>"#.to_owned();
    view! { <Drawing class="line-icon" view_box="0 0 20 20" size="20" parts/> }
}

/// A person, by the first letter of the name.
#[component]
pub fn Avatar(name: String) -> impl IntoView {
    let letter = name.chars().next().map(|letter| letter.to_uppercase().to_string());
    view! { <span class="avatar" aria-hidden="true">{letter}</span> }
}

/// The status of a message.
#[component]
pub fn Ticks(drawing: Words) -> impl IntoView {
    view! {
        <svg class="ticks" viewBox="0 0 18 16" width="18" height="16" aria-hidden="true">
            <path d=drawing></path>
        </svg>
    }
}

/// A bell, 24 by 24.
const BELL: &str = "M12 2.2a1.6 1.6 0 0 1 1.5 2.1c2.7.7 4.3 3 4.5 6.2.2 3.2.9 4.7 2.5 6.1.6.5.3 1.4-.5 1.4H4c-.8 0-1.1-.9-.5-1.4 1.6-1.4 2.3-2.9 2.5-6.1.2-3.2 1.8-5.5 4.5-6.2A1.6 1.6 0 0 1 12 2.2ZM9.6 19.4h4.8a2.4 2.4 0 0 1-4.8 0Z";

/// The tower with its three bells, for an empty list.
#[component]
pub fn Tower() -> impl IntoView {
    let bells = [
        "translate(59.6 119.1) scale(.95)",
        "translate(86.6 115.4) scale(1.12)",
        "translate(117.6 119.1) scale(.95)",
    ];
    let bells: String =
        bells.map(|place| format!(r#"<path class="brass" d="{BELL}" transform="{place}"/>"#)).concat();
    let parts = format!("{TOWER}{bells}");
    view! { <Drawing class="tower" view_box="20 4 160 208" size="208" parts/> }
}

/// Its walls, 160 by 208.
const TOWER: &str = r#"<path class="wall" d="M100 22 52 84h96ZM52 84h96v62H52ZM58 146h84v62H58Z"/><path class="arch" d="M58 142v-30a13 13 0 0 1 26 0v30ZM86 142v-34a14 14 0 0 1 28 0v34ZM116 142v-30a13 13 0 0 1 26 0v30ZM89 208v-18a11 11 0 0 1 22 0v18Z"/><path class="stroke" d="M100 8v14M93 12h14M46 84h108M48 146h104M30 208h140M72 164v12M128 164v12"/>"#;
