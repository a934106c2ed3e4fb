use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use thirtyfour::{By, Key, TypingData, WebElement};

use super::chrome::Chrome;

/// The deadline of a state of the page. Browsers are slow on busy machines.
const DEADLINE: Duration = Duration::from_secs(90);
/// The wait before a page is checked again.
const POLL: Duration = Duration::from_millis(30);
/// Reads the page by its hooks, which `frontend/src/page.rs` lists.
const READ: &str = include_str!("page.js");
/// Records what the page has shown and announced since it was loaded, however short it was there.
const WATCH: &str = include_str!("watch.js");
/// Whether something enters, leaves or changes; the hairlines of toasts do not count, nor what never ends.
const MOVES: &str = r#"
    return document.getAnimations().some((animation) =>
        animation.playState === "running"
        && animation.effect.getComputedTiming().endTime < Infinity
        && !animation.animationName?.startsWith("life-"));
"#;

/// The viewer in a browser.
pub(crate) struct Page {
    pub(crate) chrome: Chrome,
}

/// What it shows.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct State {
    pub(crate) phase: String,
    pub(crate) replica: Option<String>,
    pub(crate) pill: String,
    /// All phases since the page was opened.
    pub(crate) phases: Vec<String>,
    /// All toasts that ever came.
    pub(crate) shown: Vec<Toast>,
    /// The polite and the assertive announcements for a screen reader.
    pub(crate) polite: Vec<String>,
    pub(crate) assertive: Vec<String>,
    /// Ids, newest first.
    pub(crate) rows: Vec<String>,
    pub(crate) row_texts: Vec<String>,
    /// Oldest first.
    pub(crate) toasts: Vec<Toast>,
    pub(crate) held: bool,
    pub(crate) more: String,
    pub(crate) race: BTreeMap<String, usize>,
    /// The number of quiet replicas.
    pub(crate) quiet: usize,
    pub(crate) notice: String,
    pub(crate) missed: usize,
    pub(crate) gap: bool,
    pub(crate) gap_rows: usize,
    /// The signed-in user, and whether there is a sign-in.
    pub(crate) who: Option<String>,
    pub(crate) sign_in: bool,
    /// The numbers of unread items at the bell and in the window's title.
    pub(crate) count: String,
    pub(crate) title: String,
    /// The messages that were sent here, newest first.
    pub(crate) sent: Vec<Sent>,
    /// The texts of the unread rows, newest first.
    pub(crate) unread: Vec<String>,
    /// The states of the jobs in the list, newest first, and the number of toasts of jobs.
    pub(crate) jobs: Vec<String>,
    pub(crate) job_toasts: usize,
    /// Milliseconds on the page's clock.
    pub(crate) clock_ms: f64,
    /// The elements that overflow on the right.
    pub(crate) overflow_px: i64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Toast {
    pub(crate) id: String,
    pub(crate) severity: String,
    pub(crate) text: String,
    pub(crate) leaving: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Sent {
    pub(crate) text: String,
    pub(crate) status: String,
    /// Its name for a screen reader.
    pub(crate) words: String,
}

impl State {
    /// The toasts that stay, oldest first.
    pub(crate) fn staying(&self) -> Vec<&str> {
        self.toasts.iter().filter(|toast| !toast.leaving).map(|toast| toast.id.as_str()).collect()
    }

    /// The number of all claims.
    pub(crate) fn total(&self) -> usize {
        self.race.values().sum()
    }

    /// The ids of the list, oldest first.
    pub(crate) fn came(&self) -> Vec<&str> {
        self.rows.iter().rev().map(String::as_str).collect()
    }
}

impl Page {
    /// Opens the viewer, and returns when it is live.
    pub(crate) async fn open(chrome: Chrome, url: &str) -> Self {
        let page = Self { chrome };
        page.load(url).await;
        page
    }

    /// Loads the page anew.
    pub(crate) async fn load(&self, url: &str) {
        self.chrome.driver().goto(url).await.unwrap();
        self.until("it is live", |state| state.phase == "live").await;
        self.run(WATCH, json!([])).await;
    }

    /// Loads the page like a first visit.
    pub(crate) async fn load_as_new(&self, url: &str) {
        const FORGET: &str = r#"
            for (const event of ["pagehide", "visibilitychange"]) {
                addEventListener(event, () => sessionStorage.clear());
            }
        "#;
        self.run(FORGET, json!([])).await;
        self.load(url).await;
    }

    pub(crate) async fn state(&self) -> State {
        serde_json::from_value(self.run(READ, json!([])).await).unwrap()
    }

    /// Waits until the state of the page fulfils `condition`, and returns it.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) -> State {
        let end = Instant::now() + DEADLINE;
        loop {
            let state = self.state().await;
            if condition(&state) {
                return state;
            }
            assert!(Instant::now() < end, "the page never came to this: {what}\n{state:#?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs a script in the page; its arguments are an array.
    pub(crate) async fn run(&self, script: &str, args: Value) -> Value {
        let args = args.as_array().cloned().unwrap_or_default();
        self.chrome.driver().execute(script, args).await.unwrap().json().clone()
    }

    /// Waits until all finite animations have ended.
    pub(crate) async fn until_still(&self) {
        let end = Instant::now() + DEADLINE;
        while self.run(MOVES, json!([])).await != json!(false) {
            assert!(Instant::now() < end, "the page never stands still");
            tokio::time::sleep(POLL).await;
        }
    }

    pub(crate) async fn find(&self, css: &'static str) -> WebElement {
        self.chrome.driver().find(By::Css(css)).await.unwrap()
    }

    pub(crate) async fn click(&self, css: &'static str) {
        self.find(css).await.click().await.unwrap();
    }

    /// Types into a field.
    pub(crate) async fn fill(&self, css: &'static str, text: &str) {
        self.find(css).await.send_keys(text).await.unwrap();
    }

    /// Makes the window visible, or hidden, even after a reload.
    pub(crate) async fn look(&self, looking: bool) {
        let script = format!("document.hasFocus = () => {looking};");
        self.chrome.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script })).await;
        let event = if looking { "focus" } else { "blur" };
        self.run(&format!("{script} window.dispatchEvent(new Event('{event}'))"), json!([])).await;
    }

    /// Sets everything in a type that is wider by this much, as a length.
    pub(crate) async fn widen(&self, spacing: &str) {
        let script = r#"
            const sheet = new CSSStyleSheet();
            sheet.replaceSync(`* { letter-spacing: ${arguments[0]} !important }`);
            document.adoptedStyleSheets = [sheet];
        "#;
        self.run(script, json!([spacing])).await;
    }

    pub(crate) async fn press(&self, key: Key) {
        let chain = self.chrome.driver().action_chain_with_delay(Some(Duration::ZERO), Some(Duration::ZERO));
        chain.send_keys(TypingData::from(key)).perform().await.unwrap();
    }

    /// Presses Tab until the focus is on an element.
    pub(crate) async fn tab_to(&self, css: &str) {
        const STEPS_MAX: usize = 60;
        for _ in 0..STEPS_MAX {
            self.press(Key::Tab).await;
            let there = self.run("return document.activeElement.matches(arguments[0])", json!([css])).await;
            if there == json!(true) {
                return;
            }
        }
        panic!("{css} is not reached by {STEPS_MAX} times Tab");
    }

    /// Moves the pointer to a point of the window.
    pub(crate) async fn point_at(&self, x: i64, y: i64) {
        let chain = self.chrome.driver().action_chain_with_delay(Some(Duration::ZERO), Some(Duration::ZERO));
        chain.move_to(x, y).perform().await.unwrap();
    }

    /// Returns the new warnings and errors of the console.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.chrome.driver().browser_log().await.unwrap();
        log.into_iter().map(|entry| format!("{} {}", entry.level, entry.message)).collect()
    }

    /// Gives the window a size, as of a device with `scale` pixels a pixel. A narrow one is a phone's,
    /// whose scrollbar takes no room.
    pub(crate) async fn resize(&self, width: u32, height: u32, scale: f64) {
        let phone = width < 480;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone });
        self.chrome.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// What the device prefers, as media features and their values.
    pub(crate) async fn prefer(&self, features: &[(&str, &str)]) {
        let features: Vec<_> =
            features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.chrome.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Takes the device's network away, or gives it back.
    pub(crate) async fn network(&self, there: bool) {
        let conditions = json!({
            "offline": !there, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1,
        });
        self.chrome.devtools("Network.emulateNetworkConditions", conditions).await;
    }
}
