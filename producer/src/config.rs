use std::time::Duration;

use carillon_broker::Names;
use carillon_protocol::Audience;
use carillon_service::parse_duration;
use clap::builder::FalseyValueParser;
use clap::{Args, Parser};

/// The options of the program; each is also an environment variable, its name in capitals.
#[derive(Clone, Debug, Parser)]
#[command(name = "producer", version, about = "Writes notifications to the list in Redis")]
pub struct Options {
    /// URL of the Redis server: redis://host:port, redis://user:password@host:port/db, or rediss:// for TLS
    #[arg(long, env, default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    pub redis_url: String,
    /// Prefix of all names in Redis, the same as that of the replicas
    #[arg(long, env, value_parser = Names::in_namespace)]
    pub namespace: Option<Names>,
    /// Pushes each line of standard input instead: a JSON notification or a plain text. Blank lines are skipped
    #[arg(long, env, value_parser = FalseyValueParser::new(), conflicts_with = "count")]
    pub stdin: bool,
    /// The notifications that are generated without --stdin.
    #[command(flatten)]
    pub config: Config,
}

/// The notifications that [`crate::run`] generates.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Time between two notifications, such as 250ms, 1s or 2m. It has no effect with --stdin
    #[arg(long, env, default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,
    /// Number of notifications after which the producer stops [default: never]
    #[arg(long, env, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Who receives them: everyone, user:ID, session:ID, topic:NAME or connection:ID. A line of --stdin may name another
    #[arg(long, env, default_value = "everyone")]
    pub to: Audience,
}

impl Default for Config {
    /// One notification a second for everyone, without an end.
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), count: None, to: Audience::Everyone }
    }
}
