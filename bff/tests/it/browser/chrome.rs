use carillon_harness::{Process, need};
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::common::command::FormatRequestData;
use thirtyfour::{Capabilities, RequestData, SessionId, WebDriver};

const ARGS: [&str; 10] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,900",
];

/// A headless Chromium with a profile of its own. It and all its processes are killed when it is
/// dropped, or when the test process ends in any way.
pub(crate) struct Chrome {
    driver: Option<WebDriver>,
    _process: Process,
    _home: TempDir,
}

/// A command of the DevTools protocol.
#[derive(Debug)]
struct DevTools(&'static str, Value);

impl FormatRequestData for DevTools {
    fn format_request(&self, session: &SessionId) -> RequestData {
        RequestData::new(reqwest::Method::POST, format!("/session/{session}/goog/cdp/execute"))
            .add_body(json!({ "cmd": self.0, "params": self.1 }))
    }
}

impl Chrome {
    pub(crate) async fn start() -> Self {
        need("chromium", "chromium");
        need("chromedriver", "chromium-driver");
        let home = tempfile::tempdir().unwrap();
        let place = home.path().to_str().unwrap();
        let env = [("TMPDIR", place), ("HOME", place), ("TZ", "UTC"), ("LANG", "C.UTF-8")];
        let mut process = Process::spawn_family("chromedriver", &["--port=0"], &env);
        let line = process.wait_line("started successfully on port").await;
        let port = line.trim_end_matches('.').rsplit(' ').next().unwrap();
        let wishes = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": ARGS },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let wishes: Capabilities = serde_json::from_value(wishes).unwrap();
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), wishes).await.unwrap();
        Self { driver: Some(driver), _process: process, _home: home }
    }

    pub(crate) fn driver(&self) -> &WebDriver {
        self.driver.as_ref().unwrap()
    }

    /// Runs a command of the DevTools protocol.
    pub(crate) async fn devtools(&self, command: &'static str, params: Value) -> Value {
        self.driver().cmd(DevTools(command, params)).await.unwrap().value_json().unwrap()
    }
}

impl Drop for Chrome {
    fn drop(&mut self) {
        // Killing it is quicker than asking it to end, and cannot fail.
        let _ = self.driver.take().map(WebDriver::leak);
    }
}
