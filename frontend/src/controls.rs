//! The controls of a visitor: start a job, sign in, send a message.

use carillon_protocol::limits::NAME_MAX_BYTES;
use leptos::ev::SubmitEvent;
use leptos::html;
use leptos::prelude::*;

use crate::account::{name_fault, sign_in, sign_out};
use crate::composer::Composer;
use crate::icon::Avatar;
use crate::job;
use crate::live::{beside, on, part, press, words};
use crate::viewer::Viewer;

/// The controls: beside the list in a wide window, above it in a narrow one.
#[component]
pub fn Controls() -> impl IntoView {
    let viewer = Viewer::here();
    let me = Memo::new(move |_| viewer.inbox.read().me().map(str::to_owned));
    let asking = RwSignal::new(false);
    let may_sign_in = move || (viewer.offered.get() && me.read().is_none()).then(String::new);
    let form = move || may_sign_in().filter(|_| asking.get());
    let open = move || asking.set(!asking.get_untracked());
    let who = part(
        move || me.get(),
        move |user| {
            asking.set(false);
            view! { <Who user=user.clone()/> }.into_any()
        },
    );
    let button = part(may_sign_in, move |_| {
        view! {
            <button
                class="button"
                data-testid="sign-in"
                aria-expanded=words(move || Some(asking.get()))
                on:click=press(open)
            >
                "Sign in"
            </button>
        }
        .into_any()
    });
    view! {
        <section class="controls" data-testid="controls" aria-label="Take part">
            <div class="account">
                <button class="button" data-testid="run-job" on:click=press(move || job::run(viewer))>
                    "Run a job"
                </button>
                {who}
                {button}
            </div>
            {part(form, |_| view! { <SignIn/> }.into_any())}
            {part(move || me.read().is_some().then(String::new), |_| view! { <Composer/> }.into_any())}
            <p class="fault" role="alert" data-testid="ended">{viewer.ended}</p>
        </section>
    }
    .into_any()
}

/// The signed-in user.
#[component]
fn Who(user: String) -> impl IntoView {
    let viewer = Viewer::here();
    // A user signed in by a cookie signs out at the site that set it.
    let ours = viewer.access().pass.is_some();
    view! {
        <p class="who" data-testid="who" data-user=user.clone()>
            <Avatar name=user.clone()/>
            <span class="unseen">"Signed in as "</span>
            <bdi title=user.clone()>{user.clone()}</bdi>
        </p>
        {ours.then(|| view! {
            <button class="fold" data-testid="sign-out" on:click=press(move || sign_out(viewer, None))>
                "Sign out"
            </button>
        })}
    }
    .into_any()
}

#[component]
fn SignIn() -> impl IntoView {
    let viewer = Viewer::here();
    let fault = RwSignal::new(None::<String>);
    let busy = RwSignal::new(false);
    let field = NodeRef::<html::Input>::new();
    Effect::new(move || drop(field.get().map(|field| field.focus())));
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let user = field.get_untracked().map(|field| field.value().trim().to_owned()).unwrap_or_default();
        let wrong = name_fault(&user);
        if wrong.is_some() || busy.get_untracked() {
            fault.set(wrong);
            return;
        }
        busy.set(true);
        beside(async move {
            let refused = sign_in(viewer, &user).await.err();
            // A signed-in user does not see this form any more.
            fault.try_set(refused.map(|fault| fault.detail));
            busy.try_set(false);
        });
    };
    view! {
        <form class="composer" data-testid="sign-in-form" novalidate on:submit=on(submit)>
            <label class="field">
                <span>"Your name"</span>
                <input
                    type="text"
                    name="user"
                    autocomplete="nickname"
                    autocapitalize="off"
                    spellcheck="false"
                    maxlength=NAME_MAX_BYTES.to_string()
                    node_ref=field
                />
            </label>
            <div class="actions">
                <p class="fault" role="alert">{fault}</p>
                <button type="submit" class="button primary" aria-disabled=words(move || Some(busy.get()))>
                    "Sign in"
                </button>
            </div>
        </form>
    }
    .into_any()
}
