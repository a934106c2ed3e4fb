use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use carillon_auth::identity::{Identities, IdentityOptions};
use carillon_bff::demo::DemoKey;
use carillon_bff::signed::Signing;
use carillon_bff::{
    AllowOptions, LimitOptions, Open, PresenceOptions, Publishing, Replica, STOP_DEADLINE, Settings, metrics,
    now_ms, random, viewer,
};
use carillon_broker::{Broker, FanOut, Names};
use carillon_service::{
    ConnectionOptions, Readiness, Tasks, Timeouts, admin, bind, init_logs_at, report, serve, stop_on_signals,
};
use clap::Args;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::banner::Banner;
use crate::door::{DoorReplica, door};

/// Every port is on this machine alone, since any client of it may publish.
const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Each option is also an environment variable, its name in capitals. Port 0 stands for any free port.
#[derive(Args)]
pub(crate) struct Options {
    /// Folder with the built viewer; `cargo demo` builds it and sets this
    #[arg(long, env)]
    static_dir: Option<PathBuf>,
    /// URL of a Redis that keeps the notifications, instead of this process' memory
    #[arg(long, env, hide_env_values = true)]
    redis_url: Option<String>,
    /// Prefix of all names in Redis, for a demo of its own on a server that others share
    #[arg(long, env, value_parser = Names::in_namespace)]
    namespace: Option<Names>,
    /// Port of the front door
    #[arg(long, env, default_value_t = 8080)]
    port: u16,
    /// Port of each replica, separated by commas. There are as many replicas as ports
    #[arg(long, env, value_delimiter = ',', default_values_t = [8081, 8082, 8083])]
    replica_ports: Vec<u16>,
    /// Port of /live, /ready and /metrics
    #[arg(long, env, default_value_t = 9081)]
    admin_port: u16,
}

/// Runs everything in this process until it is stopped.
pub(crate) async fn demo(options: Options) -> anyhow::Result<()> {
    init_logs_at("warn");
    let recorder = PrometheusBuilder::new().install_recorder()?;
    metrics::describe();
    let ports = Ports::bind(&options).await?;
    let (broker, engine) =
        open(options.redis_url.as_deref(), options.namespace.clone().unwrap_or_default()).await?;

    let readiness = Readiness::default();
    let tasks = Tasks::new(stop_on_signals());
    let banner = ports.banner(engine, options.static_dir.is_some())?;
    let key = DemoKey::random()?;
    let jwt_secret = vec![key.secret()];
    let identity = IdentityOptions { jwt_secret, people_send: true, ..IdentityOptions::default() };
    let identities = Identities::new(&identity)?;
    let mut behind = Vec::new();
    let mut readers = Vec::new();
    for (name, listener) in ports.replicas {
        let settings = Settings {
            replica: name.clone(),
            fan_out: FanOut::All,
            publishing: Publishing { open: Open::ThisMachine, ..Publishing::default() },
            identities: identities.clone(),
            signing: Signing::default(),
            upstream: None,
            demo: Some(key.clone()),
            allow: AllowOptions { jobs: true, anonymous_messages: true },
            does_jobs: true,
            static_dir: options.static_dir.clone(),
            limits: LimitOptions::default(),
            timeouts: Timeouts::default(),
            presence: PresenceOptions::default(),
            clock: Arc::new(now_ms),
            random: Arc::new(random),
        };
        let replica = Replica::start(settings, &broker, &readiness, &tasks)?;
        behind.push(DoorReplica::new(&name, replica.router())?);
        readers.push(replica.readers());
        tasks.spawn("a replica's port", replica.serve(listener));
    }
    let readers_max = readers.len() * LimitOptions::default().readers_max;
    let connections = ConnectionOptions::for_readers(readers_max, metrics::port_limit_reached);
    let door = door(behind, front(options.static_dir.as_deref())?);
    let held = held(&readers);
    tasks.spawn(
        "front door",
        serve(ports.door, door, Timeouts::default(), connections, tasks.stop().clone(), held.clone()),
    );
    let (draining, observed) = (readiness.clone(), readiness.clone());
    let probes = admin(readiness, move || {
        metrics::observe(&observed);
        recorder.render()
    });
    let stop = tasks.stop().clone();
    let connections = ConnectionOptions::for_readers(0, metrics::port_limit_reached);
    let probes = serve(ports.admin, probes, Timeouts::default(), connections, stop, held);
    tasks.spawn("admin port", probes);
    tasks.spawn("producer", produce(broker.clone(), tasks.clone()));
    broker.check_policy().await;
    print_banner(&banner);

    tasks.stop().cancelled().await;
    draining.drain();
    report_drain(readers.iter().map(TaskTracker::len).sum());
    tasks.join(STOP_DEADLINE).await
}

/// The ports of the demo. All are bound before anything starts, so that a taken port is the only message.
struct Ports {
    door: TcpListener,
    replicas: Vec<(String, TcpListener)>,
    admin: TcpListener,
}

impl Ports {
    async fn bind(options: &Options) -> anyhow::Result<Self> {
        let at = |port| SocketAddr::from((HOST, port));
        let door = bind("browsers", at(options.port), "--port").await?;
        let mut replicas = Vec::new();
        for (number, port) in (1..).zip(&options.replica_ports) {
            let name = format!("bff-{number}");
            let listener = bind(&name, at(*port), "--replica-ports").await?;
            replicas.push((name, listener));
        }
        let admin = bind("probes", at(options.admin_port), "--admin-port").await?;
        Ok(Self { door, replicas, admin })
    }

    fn banner(&self, engine: String, viewer: bool) -> anyhow::Result<Banner> {
        let replicas =
            self.replicas.iter().map(|(name, listener)| Ok((name.clone(), listener.local_addr()?)));
        Ok(Banner {
            door: self.door.local_addr()?,
            replicas: replicas.collect::<anyhow::Result<_>>()?,
            admin: self.admin.local_addr()?,
            engine,
            viewer,
            program: program(),
        })
    }
}

/// Opens the engine, and returns its name for the banner. A missing Redis is an error now: retrying, as a replica does,
/// would look like a demo that shows nothing.
async fn open(redis_url: Option<&str>, names: Names) -> anyhow::Result<(Broker, String)> {
    let Some(url) = redis_url.filter(|url| !url.is_empty()) else {
        let (broker, _) = Broker::memory(Arc::new(now_ms));
        return Ok((broker, "in memory; REDIS_URL=redis://… runs the same over Redis".to_owned()));
    };
    let broker = Broker::redis(url, names).context("--redis-url or REDIS_URL")?;
    let place = without_secrets(url);
    broker.tail().await.with_context(|| format!("cannot use {place} (--redis-url or REDIS_URL)"))?;
    Ok((broker, format!("Redis at {place}")))
}

/// Returns a URL without its secrets.
fn without_secrets(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return "Redis".to_owned() };
    // A URL without a host, like unix:/path, has no user.
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.to_string()
}

/// Returns the viewer of the door, or a page that explains how to build it.
fn front(static_dir: Option<&Path>) -> anyhow::Result<Router> {
    match static_dir {
        Some(folder) => viewer(folder),
        None => Ok(Router::new().fallback(async || {
            (StatusCode::NOT_FOUND, "There is no viewer here: run `cargo demo`, which builds it.\n")
        })),
    }
}

/// Tracks the readers of all replicas, to keep the door open until the last of them is closed.
fn held(readers: &[TaskTracker]) -> TaskTracker {
    let (held, readers) = (TaskTracker::new(), readers.to_vec());
    held.spawn(async move {
        for readers in readers {
            readers.wait().await;
        }
    });
    held
}

async fn produce(broker: Broker, tasks: Tasks) -> anyhow::Result<()> {
    carillon_producer::run(&broker, &carillon_producer::Config::default(), tasks.stop()).await
}

/// Returns the command that starts this program again.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "carillon".to_owned() };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(&path).display().to_string()
}

fn print_banner(banner: &Banner) {
    let mut out = anstream::stdout().lock();
    // An error is ignored: the demo also runs when its output is closed.
    let _ = write!(out, "{banner}").and_then(|()| out.flush());
}

fn report_drain(readers: usize) {
    if readers > 0 {
        report(&format!("closing {readers} readers one by one; another Ctrl-C ends at once"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://user:secret@host:1/2?protocol=resp3", "rediss://host:1/2"),
            ("unix:///run/redis.sock?pass=secret", "unix:///run/redis.sock"),
            ("://secret", "Redis"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
