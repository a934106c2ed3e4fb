//! Reactive values of the page, in few types: each further type, and every closure is one, costs a reader some kilobytes of
//! code.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use leptos::ev;
use leptos::leptos_dom::helpers::TimeoutHandle;
use leptos::prelude::*;

/// A text or an attribute that changes.
pub type Words = Signal<Option<String>>;
/// A part of the page that changes.
pub type Part = Box<dyn FnMut() -> AnyView + Send>;
/// The handler of a pressed button.
pub type Press = Box<dyn FnMut(ev::MouseEvent)>;

/// Computes a value.
type Find<T> = Box<dyn Fn() -> T + Send + Sync>;

/// A text or an attribute that changes; without a value there is none.
pub fn words<T: ToString>(find: impl Fn() -> Option<T> + Send + Sync + 'static) -> Words {
    let find: Find<Option<String>> = Box::new(move || find().map(|word| word.to_string()));
    Signal::derive(find)
}

/// A number for the style sheet.
pub fn number<T: ToString>(find: impl Fn() -> T + Send + Sync + 'static) -> Signal<String> {
    let find: Find<String> = Box::new(move || find().to_string());
    Signal::derive(find)
}

/// An attribute that is there or not.
pub fn mark(find: impl Fn() -> bool + Send + Sync + 'static) -> Words {
    words(move || find().then_some(""))
}

/// A part of the page that is there for as long as something is, and is made anew when that changes.
pub fn part<T: PartialEq + Send + Sync + 'static>(
    find: impl Fn() -> Option<T> + Send + Sync + 'static,
    make: impl Fn(&T) -> AnyView + Send + 'static,
) -> Part {
    part_of(Box::new(find), Box::new(make))
}

fn part_of<T: PartialEq + Send + Sync + 'static>(
    find: Find<Option<T>>,
    make: Box<dyn Fn(&T) -> AnyView + Send>,
) -> Part {
    let found = Memo::new(move |_| find());
    Box::new(move || match &*found.read() {
        Some(found) => make(found),
        None => ().into_any(),
    })
}

/// A list whose entries are known by numbers: one that stays is not made anew.
pub fn each(
    find: impl Fn() -> Vec<u64> + Send + Sync + 'static,
    make: impl Fn(u64) -> AnyView + Send + Sync + 'static,
) -> AnyView {
    let find: Find<Vec<u64>> = Box::new(find);
    let make: Arc<dyn Fn(u64) -> AnyView + Send + Sync> = Arc::new(make);
    view! { <For each=find key=|number| *number children=move |number| make(number)/> }.into_any()
}

/// Spawns a future.
pub fn beside(act: impl Future<Output = ()> + 'static) {
    let act: Pin<Box<dyn Future<Output = ()>>> = Box::pin(act);
    leptos::task::spawn_local(act);
}

/// Runs `act` at each event of the window, for as long as the page lives.
pub fn at_window(event: &str, act: impl Fn(web_sys::Event) + 'static) {
    let act: Box<dyn Fn(web_sys::Event)> = Box::new(act);
    let _ = window_event_listener_untyped(event, act);
}

/// Runs `act` after a wait, unless it is cancelled.
pub fn later(act: impl FnOnce() + 'static, wait: Duration) -> Option<TimeoutHandle> {
    let act: Box<dyn FnOnce()> = Box::new(act);
    set_timeout_with_handle(act, wait).ok()
}

/// Runs `act` before the next frame.
pub fn next_frame(act: impl FnOnce() + 'static) {
    let act: Box<dyn FnOnce()> = Box::new(act);
    request_animation_frame(act);
}

/// Boxes the handler of an event.
pub fn on<E: 'static>(act: impl FnMut(E) + 'static) -> Box<dyn FnMut(E)> {
    Box::new(act)
}

/// Boxes the handler of a pressed button.
pub fn press(mut act: impl FnMut() + 'static) -> Press {
    Box::new(move |_| act())
}
