use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use carillon_auth::identity::IdentityOptions;
use carillon_auth::token::Tokens;
use carillon_broker::FanOut;
use carillon_service::profiles::ProfileOptions;
use carillon_service::{Port, Timeouts, filled};
use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret, SecretString};

use crate::application::upstream::UpstreamOptions;
use crate::gate::demo::DemoKey;
use crate::gate::keys::ApiKeys;
use crate::gate::publishing::{Open, Publishing};
use crate::gate::signed::{Signing, SigningOptions};
use crate::limits::clients::LimitOptions;
use crate::people::presence::PresenceOptions;
use crate::upkeep::storage::StorageOptions;

/// The headings of the options of rights and of demonstrations in `--help` and docs/configuration.md.
const MAY: &str = "Who may publish, send and start jobs";
const DEMO: &str = "Demonstrations";

/// The default address of readers, without LISTEN and PORT.
const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The options of a replica; each is also an environment variable, its name in capitals.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Address for readers and the API: /ws, /sse, /api/notifications and the viewer [default: 127.0.0.1:8081]
    #[arg(long, env)]
    pub listen: Option<SocketAddr>,
    /// Another way to give --listen: 3000 or :3000 keeps its host, and 0.0.0.0:3000 is a whole address
    #[arg(long, env)]
    pub port: Option<Port>,
    /// Address for /live, /ready and /metrics
    #[arg(long, env, default_value = "127.0.0.1:9081")]
    pub admin_listen: SocketAddr,
    /// URL of the Redis server: redis://, or rediss:// for TLS
    #[arg(long, env, default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    pub redis_url: String,
    /// Name of this replica, which every notification that it claims carries [default: the host name]
    #[arg(long, env, value_parser = replica_name)]
    pub replica: Option<String>,
    /// Folder with the built viewer to serve
    #[arg(long, env)]
    pub static_dir: Option<PathBuf>,
    /// Which readers receive a notification
    #[arg(long, env, value_enum, default_value_t)]
    pub fanout: FanOutOption,
    /// Leaves background jobs to workers elsewhere: docs/protocol/jobs.md
    #[arg(long, env, value_parser = clap::builder::FalseyValueParser::new())]
    pub no_worker: bool,
    /// Keys of applications, separated by commas: a secret of at least 16 bytes, which may do everything, or
    /// name:scope+scope:secret with the scopes publish, read and revoke. docs/protocol/identity.md explains the scopes
    #[arg(long, env, help_heading = MAY, hide_env_values = true, value_delimiter = ',')]
    pub api_key: Vec<SecretString>,
    /// Lets any client on this machine sign in under any name, with the first JWT_SECRET: for demonstrations only. With it, a
    /// replica refuses to start on an address that other machines reach
    #[arg(long, env, help_heading = DEMO, value_parser = clap::builder::FalseyValueParser::new())]
    pub demo_sign_in: bool,
    /// With --demo-sign-in, also allows such an address, and lets any client that reaches the replica sign in
    #[arg(long, env, help_heading = DEMO, value_parser = clap::builder::FalseyValueParser::new())]
    pub demo_sign_in_exposed: bool,
    /// What is stored in Redis
    #[command(flatten)]
    pub storage: StorageOptions,
    #[command(flatten)]
    pub identity: IdentityOptions,
    #[command(flatten)]
    pub signing: SigningOptions,
    #[command(flatten)]
    pub upstream: UpstreamOptions,
    /// Lets any client that reaches this replica publish, and gives no other right. Without it, a replica on loopback that has no
    /// keys, no secrets to sign with, no keys of tokens and no trusted proxies is open to programs of its own machine
    #[arg(long, env, help_heading = MAY, value_parser = clap::builder::FalseyValueParser::new())]
    pub allow_publish: bool,
    #[command(flatten)]
    pub allow: AllowOptions,
    #[command(flatten)]
    pub profiles: ProfileOptions,
    /// The limits of one client
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Timeouts for slow peers
    #[command(flatten)]
    pub timeouts: Timeouts,
    /// How long presence lasts without a connection or a replica
    #[command(flatten)]
    pub presence: PresenceOptions,
}

/// Rights of clients without a key. Each costs the operator something, so it is off by default.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = MAY)]
pub struct AllowOptions {
    /// Lets any client with a session or a token start jobs, which the replicas run. An application with a key always may
    #[arg(long = "allow-jobs", env = "ALLOW_JOBS", value_parser = clap::builder::FalseyValueParser::new())]
    pub jobs: bool,
    /// Accepts `message` from readers who are not signed in too. A session alone does not count as signed in
    #[arg(long = "allow-anonymous-messages", env = "ALLOW_ANONYMOUS_MESSAGES", value_parser = clap::builder::FalseyValueParser::new())]
    pub anonymous_messages: bool,
}

/// `--fanout`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FanOutOption {
    /// The readers of every replica, with history and resume
    #[default]
    All,
    /// The readers of the replica that claimed it, live only
    Own,
}

impl From<FanOutOption> for FanOut {
    fn from(option: FanOutOption) -> Self {
        match option {
            FanOutOption::All => Self::All,
            FanOutOption::Own => Self::Own,
        }
    }
}

impl Config {
    /// Returns the name of this replica, by default the host's.
    ///
    /// # Errors
    /// When the host's name is not a valid one.
    pub fn replica_name(&self) -> anyhow::Result<String> {
        match &self.replica {
            Some(name) => Ok(name.clone()),
            None => {
                let host = gethostname::gethostname().to_string_lossy().into_owned();
                replica_name(&host).map_err(|error| {
                    anyhow::anyhow!(
                        "the host name is not a valid name of a replica: {error}; set --replica or REPLICA"
                    )
                })
            }
        }
    }

    /// Returns the key with which the demo signs users in, if it is enabled.
    ///
    /// # Errors
    /// When it is enabled without a secret to sign with, or on an address that other machines reach.
    pub fn demo(&self, listen: SocketAddr) -> anyhow::Result<Option<DemoKey>> {
        let exposed = self.demo_sign_in_exposed;
        if self.demo_sign_in && !exposed && !listen.ip().is_loopback() {
            anyhow::bail!(
                "DEMO_SIGN_IN lets any client sign in under any name, and {listen} is not a loopback address: listen on 127.0.0.1, or set DEMO_SIGN_IN_EXPOSED too"
            );
        }
        let secret = self.identity.jwt_secret.iter().find(|secret| filled(secret.expose_secret()).is_some());
        match (self.demo_sign_in, secret) {
            (false, _) => Ok(None),
            (true, Some(secret)) => Ok(Some(DemoKey::of(secret.clone(), exposed))),
            (true, None) => anyhow::bail!("DEMO_SIGN_IN needs a JWT_SECRET to sign with"),
        }
    }

    /// Returns the address of readers, from LISTEN and PORT.
    ///
    /// # Errors
    /// When the two name different addresses.
    pub fn listen_on(&self) -> anyhow::Result<SocketAddr> {
        let listen = self.listen.unwrap_or(LISTEN_DEFAULT);
        match (self.listen, self.port) {
            (_, None) => Ok(listen),
            (_, Some(Port::Number(port))) => Ok((listen.ip(), port).into()),
            (Some(listen), Some(Port::At(at))) if listen != at => anyhow::bail!(
                "LISTEN is {listen} and PORT is {at}: give one of them, or a PORT like :{}, which keeps the address of LISTEN",
                at.port()
            ),
            (_, Some(Port::At(at))) => Ok(at),
        }
    }

    /// Returns who may publish. Without keys, secrets to sign with, users who sign in, and trusted proxies, a replica at a
    /// loopback address is open to its own machine. Each request is checked too, since a proxy beside the replica has such
    /// an address as well.
    ///
    /// # Errors
    /// Names each unusable key, with the reason.
    pub fn publishing(
        &self,
        listen: SocketAddr,
        signing: &Signing,
        tokens: &Tokens,
    ) -> anyhow::Result<Publishing> {
        let keys = ApiKeys::new(&self.api_key)?;
        let has_proxy = !self.limits.trusted_proxies.is_empty() || self.limits.trusted_proxy_hops.is_some();
        let has_people = signing.is_configured() || tokens.is_configured();
        let only_us = listen.ip().is_loopback() && !has_proxy && !has_people;
        let open = match (keys.is_empty(), self.allow_publish) {
            (false, _) => Open::Nobody,
            (true, true) => Open::Anybody,
            (true, false) if only_us => Open::ThisMachine,
            (true, false) => Open::Nobody,
        };
        Ok(Publishing { keys, open })
    }
}

/// Maximum bytes of a replica's name.
const REPLICA_MAX_BYTES: usize = 64;

/// The name goes into every frame and is one word in a fan-out message.
fn replica_name(text: &str) -> Result<String, String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=REPLICA_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_word) {
        Ok(text.to_owned())
    } else {
        Err(format!("'{text}': use 1 to {REPLICA_MAX_BYTES} letters, digits, dots, dashes and underscores"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn port_is_another_way_to_say_listen() {
        let listen = |args: &[&str]| {
            let config = Cli::parse_from([&["bff"], args].concat()).config;
            config.listen_on().map(|addr| addr.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(listen(&[]).unwrap(), "127.0.0.1:8081");
        assert_eq!(listen(&["--port", ":3000"]).unwrap(), "127.0.0.1:3000");
        assert_eq!(listen(&["--listen", "0.0.0.0:8081", "--port", "3000"]).unwrap(), "0.0.0.0:3000");
        assert_eq!(listen(&["--port", "0.0.0.0:3000"]).unwrap(), "0.0.0.0:3000");
        assert_eq!(listen(&["--listen", "[::]:1", "--port", "[::]:1"]).unwrap(), "[::]:1");
        let error = listen(&["--listen", "0.0.0.0:8081", "--port", "127.0.0.1:3000"]).unwrap_err();
        assert_eq!(
            error,
            "LISTEN is 0.0.0.0:8081 and PORT is 127.0.0.1:3000: give one of them, or a PORT like :3000, which keeps the address of LISTEN"
        );
    }
}
