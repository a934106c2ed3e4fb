use leptos::prelude::*;

use crate::icon::Bell;
use crate::inbox::Standing;
use crate::live::{each, mark, number, part, words};
use crate::viewer::Viewer;
use crate::words::grouped;

/// The claims of each replica: a table whose bars are drawn, and whose numbers are read out.
#[component]
pub fn RaceTable() -> impl IntoView {
    let viewer = Viewer::here();
    let standings = Memo::new(move |_| {
        let now_ms = viewer.now.get().ms;
        viewer.inbox.read().race().standings(now_ms)
    });
    let entries = Memo::new(move |_| standings.read().iter().map(|bar| bar.entry).collect::<Vec<u64>>());
    let bar = move |entry| {
        let first = standings.read_untracked().iter().find(|bar| bar.entry == entry).cloned();
        first.map(|first| view! { <Bar first standings/> }).into_any()
    };
    let others = move || Some(viewer.inbox.read().race().others()).filter(|others| *others > 0);
    let total = move || match viewer.inbox.read().race().total() {
        0 => "nothing won yet".to_owned(),
        total => format!("{} won", grouped(total)),
    };
    view! {
        <section class="race" aria-labelledby="race">
            <div class="race-head">
                <h2 id="race">"The race"</h2>
                <p class="total">{words(move || Some(total()))}</p>
            </div>
            <table aria-labelledby="race">
                <thead>
                    <tr>
                        <th scope="col">"Replica"</th>
                        <th scope="col">"Won"</th>
                        <th scope="col">"Share"</th>
                    </tr>
                </thead>
                <tbody>
                    {each(move || entries.get(), bar)}
                </tbody>
            </table>
            <p class="others">{words(move || Some(format!("{} by others before", grouped(others()?))))}</p>
        </section>
    }
}

#[component]
fn Bar(first: Standing, standings: Memo<Vec<Standing>>) -> impl IntoView {
    let Standing { entry, name, hue, .. } = first.clone();
    let bar = Memo::new(move |_| {
        standings.read().iter().find(|bar| bar.entry == entry).cloned().unwrap_or_else(|| first.clone())
    });
    let quiet = part(
        move || bar.read().quiet_s,
        |seconds| view! { <span class="quiet">{format!("quiet for {seconds} s")}</span> }.into_any(),
    );
    view! {
        <tr
            data-testid="race-bar"
            data-replica=name.clone()
            data-count=words(move || Some(bar.read().wins))
            data-quiet=mark(move || bar.read().quiet_s.is_some())
            // The bell of the last claim swings; the class alternates, so that the swing restarts.
            data-beat=words(move || bar.read().last.then(|| bar.read().wins % 2))
            style:--hue=format!("var(--racer-{hue})")
        >
            <th scope="row">
                <span class="name">
                    <Bell/>
                    <bdi title=name.clone()>{name.clone()}</bdi>
                </span>
                <span class="track" aria-hidden="true">
                    <span
                        class="bar"
                        style:--length=number(move || bar.read().length)
                    ></span>
                </span>
                {quiet}
            </th>
            <td class="wins">{words(move || Some(grouped(bar.read().wins)))}</td>
            <td class="share">{words(move || Some(format!("{} %", bar.read().percent)))}</td>
        </tr>
    }
}
