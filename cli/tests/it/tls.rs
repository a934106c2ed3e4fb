use carillon_harness::{Process, eventually, free_port};

use crate::running::{CARILLON, DEADLINE, Demo, one_line};

/// A front door with TLS, with its own authority.
struct Caddy {
    _process: Process,
    _folder: tempfile::TempDir,
    url: String,
    /// The certificate of its authority.
    root: String,
    token: String,
}

impl Caddy {
    async fn start(behind: &Demo) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let url = format!("https://localhost:{}", free_port());
        let config = format!(
            "{{\n admin off\n skip_install_trust\n auto_https disable_redirects\n local_certs\n storage file_system {place}\n}}\n\
             {url} {{\n reverse_proxy {}\n}}\n",
            behind.url
        );
        let file = format!("{place}/Caddyfile");
        std::fs::write(&file, config).unwrap();
        let process = Process::spawn("caddy", &["run", "--config", &file, "--adapter", "caddyfile"], &[]);
        let root = format!("{place}/pki/authorities/local/root.crt");
        // Behind a proxy, publishing needs a key; a user may send.
        let ann = serde_json::json!({ "user": "ann" });
        let signed_in = reqwest::Client::new().post(format!("{}/api/demo/token", behind.url)).json(&ann);
        let signed_in: serde_json::Value = signed_in.send().await.unwrap().json().await.unwrap();
        let token = signed_in["token"].as_str().unwrap().to_owned();
        let caddy = Self { _process: process, _folder: folder, url, root, token };
        eventually("Caddy has a certificate and answers", DEADLINE, async || {
            caddy.carillon(&["send", "are you there?", "--to", "user:ann"]).wait_exit(DEADLINE).await == 0
        })
        .await;
        caddy
    }

    /// `carillon` that trusts it.
    fn carillon(&self, args: &[&str]) -> Process {
        let args = [args, &["--url", &self.url]].concat();
        Process::spawn(CARILLON, &args, &[("SSL_CERT_FILE", &self.root), ("CARILLON_TOKEN", &self.token)])
    }
}

#[tokio::test]
async fn sends_and_tails_over_tls_where_it_is_trusted() {
    let demo = Demo::start().await;
    let caddy = Caddy::start(&demo).await;
    let mut tail = caddy.carillon(&["tail"]);
    tail.wait_line("-- connected to bff-").await;
    assert_eq!(
        caddy.carillon(&["send", "sealed on its way", "--to", "user:ann"]).wait_exit(DEADLINE).await,
        0
    );
    tail.wait_line("sealed on its way").await;

    // Another authority's certificate proves nothing.
    let other = Caddy::start(&demo).await;
    let env = [("SSL_CERT_FILE", other.root.as_str())];
    let line = one_line(Process::spawn(CARILLON, &["send", "x", "--url", &caddy.url], &env)).await;
    assert!(line.contains("invalid peer certificate"), "{line}");
    Process::spawn(CARILLON, &["tail", "--url", &caddy.url], &env)
        .wait_line("invalid peer certificate")
        .await;

    let env = [("SSL_CERT_FILE", "/nowhere")];
    let line = one_line(Process::spawn(CARILLON, &["send", "x", "--url", &caddy.url], &env)).await;
    assert!(line.starts_with("this machine has no certificates to verify https://localhost:"), "{line}");
}
