use leptos::prelude::*;

use crate::icon::Bell;
use crate::inbox::Standing;
use crate::viewer::Viewer;
use crate::words::grouped;

/// Who won the race how often: a table whose bars are drawn, and read out as numbers.
#[component]
pub fn RaceTable() -> impl IntoView {
    let viewer = Viewer::here();
    let standings = Memo::new(move |_| {
        let now_ms = viewer.now.get().ms;
        viewer.inbox.with(|inbox| inbox.race().standings(now_ms))
    });
    let names = Memo::new(move |_| {
        standings.with(|bars| bars.iter().map(|bar| (bar.name.clone(), bar.hue)).collect::<Vec<_>>())
    });
    let others = Memo::new(move |_| viewer.inbox.with(|inbox| inbox.race().others()));
    let total = Memo::new(move |_| viewer.inbox.with(|inbox| inbox.race().total()));
    view! {
        <section class="race" aria-labelledby="race">
            <div class="race-head">
                <h2 id="race">"The race"</h2>
                <p class="total">
                    {move || match total.get() {
                        0 => "nothing won yet".to_owned(),
                        total => format!("{} won", grouped(total)),
                    }}
                </p>
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
                    <For each=move || names.get() key=Clone::clone let:racer>
                        <Bar name=racer.0 hue=racer.1 standings/>
                    </For>
                </tbody>
            </table>
            <Show when=move || { others.get() > 0 }>
                <p class="others">{move || format!("{} by others before", grouped(others.get()))}</p>
            </Show>
        </section>
    }
}

#[component]
fn Bar(name: String, hue: usize, standings: Memo<Vec<Standing>>) -> impl IntoView {
    let own = name.clone();
    let bar = Memo::new(move |_| {
        standings.with(|bars| bars.iter().find(|bar| bar.name == own).cloned()).unwrap_or_else(|| Standing {
            name: own.clone(),
            hue,
            wins: 0,
            percent: 0,
            length: 0,
            last: false,
            quiet_s: None,
        })
    });
    let wins = move || bar.with(|bar| bar.wins);
    let quiet = Memo::new(move |_| bar.with(|bar| bar.quiet_s));
    view! {
        <tr
            data-testid="race-bar"
            data-replica=name.clone()
            data-count=wins
            data-quiet=move || quiet.get().map(|_| "")
            // The last winner's bell swings; it alternates, so that it swings anew.
            data-beat=move || bar.with(|bar| bar.last.then_some(bar.wins % 2))
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
                        style:--length=move || bar.with(|bar| bar.length.to_string())
                    ></span>
                </span>
                {move || {
                    quiet.get().map(|seconds| view! { <span class="quiet">{format!("quiet for {seconds} s")}</span> })
                }}
            </th>
            <td class="wins">{move || grouped(wins())}</td>
            <td class="share">{move || bar.with(|bar| format!("{} %", bar.percent))}</td>
        </tr>
    }
}
