//! Pictures of the page, for people to look at; `scripts/screenshots` makes them.

use std::cell::Cell;
use std::path::PathBuf;

use serde_json::json;
use thirtyfour::Key;

use super::page::State;
use super::people::{send, sign_in, until_ticked};
use super::sample::{DAY, LATEST, MORE, ODD, Sample};
use super::stage::Stage;
use crate::door::{root, viewer};
use crate::world::Bff;

/// Pixels of a window, and how many of the device's make one of them.
type Size = (u32, u32, f64);

const THEMES: [&str; 2] = ["light", "dark"];
const DESKTOP: Size = (1_280, 800, 1.0);
const PHONE: Size = (390, 844, 1.0);
const NARROW: Size = (320, 640, 1.0);
/// The desktop at 200 %: half as many pixels, each twice as large.
const ZOOMED: Size = (640, 400, 2.0);
/// Sharp enough, and a file of a size that a page can carry.
const README_SCALE: f64 = 1.5;

/// Says to the toasts that a pointer is over them, without one that would be seen.
const HOLD: &str = r#"document.querySelector(".toasts").dispatchEvent(new PointerEvent("pointerenter"))"#;
const LET_GO: &str = r#"document.querySelector(".toasts").dispatchEvent(new PointerEvent("pointerleave"))"#;

/// Starts a job that takes its time.
const LONG_JOB: &str = r#"
    const { token } = JSON.parse(sessionStorage.getItem("carillon-pass"));
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    fetch("/api/jobs", { method: "POST", headers, body: '{"name":"Import","steps":100}' });
"#;

/// A stage, and where its pictures go.
struct Studio {
    stage: Stage,
    folder: PathBuf,
    /// Whether to wait until nothing moves; a job that runs never stands still for long.
    patient: Cell<bool>,
}

impl Studio {
    async fn open(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).unwrap();
        let studio = Self { stage: Stage::of_people().await, folder, patient: Cell::new(true) };
        studio.stage.page.chrome.devtools("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
        studio
    }

    async fn size(&self, (width, height, scale): Size) {
        self.stage.page.resize(width, height, scale).await;
    }

    /// Pushes samples one by one, so that every replica has its chance.
    async fn push(&self, samples: &[Sample]) {
        for sample in samples {
            let state = self.stage.page.state().await;
            let waits = self.far_ahead(&state);
            if let Some(bff) = waits {
                bff.process.signal("STOP");
            }
            self.stage.push([sample.to_json()]).await;
            self.stage.page.until("it came", |now| now.total() > state.total()).await;
            if let Some(bff) = waits {
                bff.process.signal("CONT");
            }
        }
    }

    /// The replica that has to sit a round out, so that the picture is of a race. The one that the page
    /// hangs on cannot.
    fn far_ahead(&self, state: &State) -> Option<&Bff> {
        const LEAD_MAX: usize = 4;
        let wins = |bff: &Bff| state.race.get(&bff.name).copied().unwrap_or_default();
        let last = self.stage.door.bffs.iter().map(wins).min().unwrap_or_default();
        let others = self.stage.door.bffs.iter().filter(|bff| state.replica.as_ref() != Some(&bff.name));
        others.filter(|bff| wins(bff) > last + LEAD_MAX).max_by_key(|bff| wins(bff))
    }

    /// A page on which a day has passed, without toasts.
    async fn a_day(&self) {
        self.push(&DAY).await;
        self.no_toasts().await;
    }

    async fn no_toasts(&self) {
        while !self.stage.page.state().await.toasts.is_empty() {
            self.stage.page.press(Key::Escape).await;
        }
    }

    /// Pushes samples whose toasts stay on the page.
    async fn show(&self, samples: &[Sample]) {
        self.push(&samples[..1]).await;
        self.stage.page.run(HOLD, json!([])).await;
        self.push(&samples[1..]).await;
    }

    async fn let_go(&self) {
        self.stage.page.run(LET_GO, json!([])).await;
        self.no_toasts().await;
    }

    /// Takes the picture in one theme, when everything that enters has entered.
    async fn take_as(&self, theme: &str, name: &str) {
        self.stage.page.prefer(&[("prefers-color-scheme", theme)]).await;
        if self.patient.get() {
            self.stage.page.until_still().await;
        }
        let path = self.folder.join(format!("{name}.png"));
        self.stage.page.chrome.driver().screenshot(&path).await.unwrap();
    }

    /// Takes the picture in windows of other sizes, in the light theme, and goes back to the desktop.
    async fn at_sizes(&self, name: &str, sizes: &[(&str, Size)]) {
        for (kind, size) in sizes {
            self.size(*size).await;
            self.take_as("light", &format!("{name}-{kind}")).await;
        }
        self.size(DESKTOP).await;
    }

    /// Takes the picture in both themes.
    async fn take(&self, name: &str) {
        for theme in THEMES {
            self.take_as(theme, &format!("{name}-{theme}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes docs/screenshots"]
async fn for_the_readme() {
    let studio = Studio::open(root().join("docs/screenshots")).await;
    studio.size((DESKTOP.0, DESKTOP.1, README_SCALE)).await;
    studio.a_day().await;
    let page = &studio.stage.page;
    sign_in(page, "anna").await;
    let bob = studio.stage.another().await;
    sign_in(&bob, "bob").await;
    send(page, "bob", "2.15 goes out now. Will you tell the shops?").await;
    until_ticked(page, "read", "Read").await;
    send(&bob, "anna", "They know").await;
    until_ticked(&bob, "read", "Read").await;
    studio.no_toasts().await;
    page.run("document.activeElement.blur()", json!([])).await;
    studio.show(&LATEST).await;
    studio.take_as("light", "desktop-light").await;
    studio.take_as("dark", "desktop-dark").await;
    studio.let_go().await;
    studio.size((PHONE.0, PHONE.1, README_SCALE)).await;
    studio.show(&MORE[..1]).await;
    studio.take_as("light", "phone-light").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes target/screenshots"]
async fn of_every_state() {
    let mut studio = Studio::open(viewer().with_file_name("screenshots")).await;
    studio.size(DESKTOP).await;
    studio.take("empty").await;
    studio.at_sizes("empty", &[("phone", PHONE)]).await;

    studio.a_day().await;
    let away = (studio.stage.held_by().await + 1) % 3;
    studio.stage.door.bffs[away].process.kill();
    studio.take("live").await;
    studio.at_sizes("live", &[("phone", PHONE), ("narrow", NARROW), ("zoomed", ZOOMED)]).await;

    studio.show(&LATEST).await;
    studio.push(&MORE).await;
    studio.take("toasts").await;
    studio.at_sizes("toasts", &[("phone", PHONE), ("narrow", NARROW), ("zoomed", ZOOMED)]).await;
    studio.stage.page.tab_to(".toast .close").await;
    studio.take("focus").await;
    studio.stage.page.run("document.activeElement.blur()", json!([])).await;
    studio.let_go().await;

    studio.show(&ODD).await;
    studio.take("odd-texts").await;
    studio.at_sizes("odd-texts", &[("phone", PHONE), ("narrow", NARROW)]).await;
    studio.let_go().await;

    studio.stage.page.run("window.scrollTo({ top: 600, behavior: 'instant' })", json!([])).await;
    studio.stage.page.until_still().await;
    studio.push(&LATEST).await;
    studio.no_toasts().await;
    studio.take("scrolled").await;
    studio.stage.page.click(r#"[data-testid="new"]"#).await;

    studio.stage.page.network(false).await;
    studio.stage.page.until("it is offline", |state| state.phase == "offline").await;
    studio.take("offline").await;
    studio.at_sizes("offline", &[("narrow", NARROW)]).await;
    let missed = DAY[..12].iter().map(Sample::to_json);
    studio.stage.push(missed).await;
    studio.stage.page.network(true).await;
    studio.stage.page.until("it tells what was missed", |state| state.missed == 12).await;
    studio.no_toasts().await;
    studio.take("caught-up").await;
    studio.at_sizes("caught-up", &[("narrow", NARROW)]).await;

    studio.stage.door.world.redis.start_again_empty();
    studio.push(&LATEST[..2]).await;
    studio.stage.page.until("the gap", |state| state.gap).await;
    studio.no_toasts().await;
    studio.take("gap").await;
    studio.at_sizes("gap", &[("phone", PHONE)]).await;

    studio.stage.page.until("the replica that went away is quiet", |state| state.quiet > 0).await;
    studio.take("quiet").await;

    for bff in &mut studio.stage.door.bffs {
        bff.process.kill();
    }
    for name in ["reconnecting", "reconnecting-later"] {
        let waits = |seconds: u32| move |pill: &str| pill.contains(&format!("in {seconds} s"));
        studio.stage.page.until("a wait", |state| (2..30).any(|seconds| waits(seconds)(&state.pill))).await;
        studio.take(name).await;
    }
    studio.at_sizes("reconnecting", &[("narrow", NARROW)]).await;

    let page = &studio.stage.page;
    page.chrome.devtools("Network.enable", json!({})).await;
    page.chrome.devtools("Network.setBlockedURLs", json!({ "urls": ["*.wasm"] })).await;
    page.chrome.driver().goto(&studio.stage.door.url("/")).await.unwrap();
    studio.take("failed").await;
}

/// Pictures of people who write to each other, and of a job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes target/screenshots"]
async fn of_people() {
    let studio = Studio::open(viewer().with_file_name("screenshots")).await;
    let anna = &studio.stage.page;
    studio.size(DESKTOP).await;
    studio.push(&DAY[..6]).await;
    studio.no_toasts().await;
    studio.take("anonymous").await;
    studio.at_sizes("anonymous", &[("phone", PHONE)]).await;
    anna.click(r#"[data-testid="sign-in"]"#).await;
    studio.take("sign-in").await;
    studio.at_sizes("sign-in", &[("phone", PHONE)]).await;
    anna.click(r#"[data-testid="sign-in"]"#).await;

    sign_in(anna, "anna").await;
    let bob = studio.stage.another().await;
    sign_in(&bob, "bob").await;
    send(anna, "bob", "The hall is ours on Friday, from six").await;
    until_ticked(anna, "read", "Read").await;
    send(&bob, "anna", "Good. Who brings the cake? I can ask Clara, she bakes a very good one.").await;
    until_ticked(&bob, "read", "Read").await;
    bob.look(false).await;
    send(anna, "bob", "Do ask her").await;
    until_ticked(anna, "delivered", "Delivered").await;
    send(anna, "clara", "Bob will ask you about a cake").await;
    until_ticked(anna, "sent", "Sent").await;
    studio.no_toasts().await;
    studio.take("messages").await;
    studio.at_sizes("messages", &[("phone", PHONE), ("narrow", NARROW), ("zoomed", ZOOMED)]).await;

    anna.look(false).await;
    send(&bob, "anna", "She will").await;
    anna.until("it came", |state| state.unread.len() == 1).await;
    anna.run(HOLD, json!([])).await;
    anna.run(LONG_JOB, json!([])).await;
    anna.until("it runs", |state| state.jobs == ["running"] && state.row_texts[0].contains("12 %")).await;
    studio.patient.set(false);
    studio.take("job").await;
    studio.at_sizes("job", &[("phone", PHONE)]).await;
    studio.patient.set(true);
    anna.until("it is done", |state| state.jobs == ["done"]).await;
    studio.take("job-done").await;
    studio.let_go().await;

    anna.network(false).await;
    anna.until("it is offline", |state| state.phase == "offline").await;
    send(anna, "bob", "I am in the train, and will call you later").await;
    studio.take("offline-signed-in").await;
    studio.at_sizes("offline-signed-in", &[("phone", PHONE)]).await;
}
