use std::collections::HashMap;
use std::time::Duration;

use carillon_harness::Process;

pub(crate) const CARILLON: &str = env!("CARGO_BIN_EXE_carillon");
/// Ends a failed test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Port 0 is any free port.
const PORTS: [(&str, &str); 3] = [("PORT", "0"), ("REPLICA_PORTS", "0,0,0"), ("ADMIN_PORT", "0")];

/// `carillon` with arguments.
pub(crate) fn carillon(args: &[&str]) -> Process {
    Process::spawn(CARILLON, args, &[])
}

/// `carillon demo` on free ports, where the arguments say nothing else.
pub(crate) fn spawn(args: &[&str], env: &[(&str, &str)]) -> Process {
    Process::spawn(CARILLON, &[&["demo"], args].concat(), &[&PORTS, env].concat())
}

/// A demo that is ready.
pub(crate) struct Demo {
    pub(crate) process: Process,
    /// The address of its front door.
    pub(crate) url: String,
}

impl Demo {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    pub(crate) async fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut process = spawn(args, env);
        process.wait_line("Ctrl-C stops it").await;
        let mut addresses = addresses(&process);
        let url = addresses.remove("open").or_else(|| addresses.remove("door")).unwrap();
        Self { process, url }
    }

    /// The address of a replica or of the admin port.
    pub(crate) fn address(&self, name: &str) -> String {
        addresses(&self.process).remove(name).unwrap()
    }

    /// Returns the URL of its WebSocket.
    pub(crate) fn socket(&self) -> String {
        format!("{}/ws", self.url.replace("http:", "ws:"))
    }

    /// Posts a notification and returns the status.
    pub(crate) async fn post(&self, json: &str) -> u16 {
        let request = reqwest::Client::new().post(format!("{}/api/notifications", self.url));
        let request = request.header("content-type", "application/json").body(json.to_owned());
        request.send().await.unwrap().status().as_u16()
    }
}

/// Returns the addresses in the banner, by the word before them.
fn addresses(process: &Process) -> HashMap<String, String> {
    let lines = process.stdout();
    let named = lines.iter().filter_map(|line| {
        let (name, rest) = line.trim().split_once(' ')?;
        let url = rest.trim().strip_prefix("http://")?.split([',', ' ', '/']).next()?;
        Some((name.to_owned(), format!("http://{url}")))
    });
    named.collect()
}

/// Returns the one line that a failed process wrote, without its name.
pub(crate) async fn one_line(mut process: Process) -> String {
    assert_eq!(process.wait_exit(DEADLINE).await, 1);
    assert_eq!(process.stdout(), Vec::<String>::new());
    let lines = process.stderr();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines[0].strip_prefix("carillon: ").expect("the name of the program").to_owned()
}
