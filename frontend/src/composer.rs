use carillon_protocol::limits::{BODY_MAX_CHARS, NAME_MAX_BYTES};
use leptos::ev::{KeyboardEvent, SubmitEvent};
use leptos::html;
use leptos::prelude::*;

use crate::account::name_fault;
use crate::id::new_id;
use crate::inbox::{Event, Sent, UNSENT_MAX_MESSAGES};
use crate::list;
use crate::live::on;
use crate::viewer::Viewer;

/// Returns the fault of a text, if it has one.
fn text_fault(text: &str) -> Option<String> {
    match text.chars().count() {
        0 => Some("Type a message first".to_owned()),
        1..=BODY_MAX_CHARS => None,
        chars => Some(format!("A message has at most {BODY_MAX_CHARS} characters, this one has {chars}")),
    }
}

/// Returns why no message can be sent now, if that is so.
fn room_fault(sent: &Sent) -> Option<String> {
    let why = || format!("{UNSENT_MAX_MESSAGES} messages wait: they are sent when the page is live");
    sent.is_full().then(why)
}

/// The form that sends a message to a user. The message is in the list at once.
#[component]
pub fn Composer() -> impl IntoView {
    let viewer = Viewer::here();
    let fault = RwSignal::new(None::<String>);
    let to_field = NodeRef::<html::Input>::new();
    let text_field = NodeRef::<html::Textarea>::new();
    let send = move || {
        let Some((to_field, text_field)) = to_field.get_untracked().zip(text_field.get_untracked()) else {
            return;
        };
        let (to, text) = (to_field.value().trim().to_owned(), text_field.value().trim().to_owned());
        let wrong = name_fault(&to).inspect(|_| drop(to_field.focus()));
        let wrong = wrong.or_else(|| room_fault(viewer.inbox.read_untracked().sent()));
        let wrong = wrong.or_else(|| text_fault(&text).inspect(|_| drop(text_field.focus())));
        if wrong.is_none() {
            viewer.act(Event::Send { id: new_id(), to, text });
            text_field.set_value("");
            list::leave_depth();
        }
        fault.set(wrong);
    };
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        send();
    };
    let key = move |event: KeyboardEvent| {
        if event.key() == "Enter" && !event.shift_key() && !event.is_composing() {
            event.prevent_default();
            send();
        }
    };
    // An answer has the name filled in and continues with the text.
    Effect::new(move || {
        let to = viewer.answer_to.get();
        if let Some((to_field, text_field)) = to_field.get().zip(text_field.get()).filter(|_| !to.is_empty())
        {
            to_field.set_value(&to);
            drop(text_field.focus());
            viewer.answer_to.write_untracked().clear();
        }
    });
    view! {
        <form class="composer" data-testid="composer" novalidate on:submit=on(submit)>
            <label class="field">
                <span>"To"</span>
                <input
                    type="text"
                    name="to"
                    autocomplete="off"
                    autocapitalize="off"
                    spellcheck="false"
                    maxlength=NAME_MAX_BYTES.to_string()
                    placeholder="a user's name"
                    node_ref=to_field
                />
            </label>
            <label class="field">
                <span>"Message"</span>
                <textarea
                    name="text"
                    rows="2"
                    maxlength=BODY_MAX_CHARS.to_string()
                    dir="auto"
                    node_ref=text_field
                    on:keydown=on(key)
                ></textarea>
            </label>
            <div class="actions">
                <p class="fault" role="alert">{fault}</p>
                <button type="submit" class="button primary" data-testid="send">"Send"</button>
            </div>
        </form>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_counted_in_characters() {
        assert!(text_fault("").is_some() && text_fault(&"é".repeat(BODY_MAX_CHARS + 1)).is_some());
        assert_eq!(text_fault(&"é".repeat(BODY_MAX_CHARS)), None);
    }
}
