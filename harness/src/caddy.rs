use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::{Process, eventually, free_port, need};

/// A Caddy that does not serve after this time has failed.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Maximum starts, which may fail because another process took the port first.
const TRIES: usize = 5;

/// A real Caddy on a free loopback port, with a configuration that reads `LISTEN` and `BIND` from its environment. It stores
/// nothing on disk, and is killed when it is dropped.
#[derive(Debug)]
pub struct Caddy {
    process: Process,
    addr: SocketAddr,
    _home: TempDir,
}

impl Caddy {
    /// Starts it, and returns when it serves.
    ///
    /// # Panics
    /// When Caddy is not installed or does not start.
    pub async fn start(config: &Path, env: &[(&str, &str)]) -> Self {
        need("caddy", "caddy");
        for _ in 0..TRIES {
            let mut caddy = Self::spawn(config, env);
            let mut ended = false;
            eventually("caddy serves", START_DEADLINE, async || {
                ended = !caddy.process.is_running();
                ended || TcpStream::connect(caddy.addr).is_ok()
            })
            .await;
            if !ended && caddy.process.is_running() {
                return caddy;
            }
            assert!(
                caddy.process.stderr().iter().any(|line| line.contains("address already in use")),
                "caddy ended at its start:\n{}",
                caddy.process.stderr().join("\n")
            );
        }
        panic!("no port for caddy in {TRIES} tries");
    }

    fn spawn(config: &Path, env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let (listen, place) = (format!(":{port}"), home.path().to_string_lossy());
        let own = [
            ("LISTEN", &*listen),
            ("BIND", "127.0.0.1"),
            ("XDG_DATA_HOME", &*place),
            ("XDG_CONFIG_HOME", &*place),
        ];
        let config = config.to_string_lossy();
        let args = ["run", "--config", &*config, "--adapter", "caddyfile"];
        let process = Process::spawn("caddy", &args, &[&own, env].concat());
        Self { process, addr: (Ipv4Addr::LOCALHOST, port).into(), _home: home }
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("http://localhost:{}", self.addr.port())
    }
}
