use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use carillon_harness::{Caddy, Dns, RedisServer, free_port};

use crate::world::{Bff, World};

/// Three replicas behind the front door of a real deployment.
pub(crate) struct Door {
    pub(crate) bffs: Vec<Bff>,
    pub(crate) world: World,
    caddy: Caddy,
    _dns: Dns,
    port: u16,
    args: &'static [&'static str],
}

impl Door {
    pub(crate) async fn open(redis: RedisServer) -> Self {
        Self::open_with(redis, &[]).await
    }

    /// [`Door::open`] with further arguments for each replica.
    pub(crate) async fn open_with(redis: RedisServer, args: &'static [&'static str]) -> Self {
        let viewer = viewer();
        let world = World::over(redis);
        let port = free_port();
        let mut bffs = vec![];
        for at in 0..3 {
            let name = format!("bff-{}", at + 1);
            bffs.push(Bff::spawn_at(
                &name,
                (host(at), port).into(),
                &world.redis.url(),
                &[args, &["--allow-jobs"]].concat(),
            ));
        }
        let dns = Dns::start(&[host(0), host(1), host(2)]).await;
        let env = [
            ("DNS_RESOLVER", dns.addr().to_string()),
            ("BFF_PORT", port.to_string()),
            ("VIEWER_DIR", viewer.to_string_lossy().into_owned()),
        ];
        let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
        let caddy = Caddy::start(&root().join("frontend/Caddyfile"), &env).await;
        for bff in &bffs {
            bff.until_ready().await;
        }
        Self { bffs, world, caddy, _dns: dns, port, args }
    }

    /// Where it is.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.caddy.url())
    }

    /// Starts a replica that has ended anew, in its old place.
    pub(crate) async fn start_again(&mut self, at: usize) {
        let name = self.bffs[at].name.clone();
        self.bffs[at] = Bff::spawn_at(
            &name,
            (host(u8::try_from(at).unwrap()), self.port).into(),
            &self.world.redis.url(),
            self.args,
        );
        self.bffs[at].until_ready().await;
    }
}

/// What DNS lists are hosts with one port, so each replica has a loopback address of its own.
fn host(at: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, at + 2)
}

/// The built viewer.
pub(crate) fn viewer() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_bff")).ancestors().nth(2).unwrap();
    let folder = target.join("viewer");
    let built = folder.join("index.html").is_file();
    assert!(built, "no viewer in {}: build it with `cargo xtask viewer`", folder.display());
    folder
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
