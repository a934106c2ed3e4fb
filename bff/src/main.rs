//! The `bff` program: one replica.

use std::process::ExitCode;
use std::sync::Arc;

use carillon_auth::identity::Identities;
use carillon_bff::command_line::{Command, CommandLine};
use carillon_bff::dead::dead;
use carillon_bff::demo::DemoKey;
use carillon_bff::rotate::rotate_session_key;
use carillon_bff::signed::Signing;
use carillon_bff::{Config, Replica, STOP_DEADLINE, Settings, Upstream, metrics, now_ms, random};
use carillon_broker::Broker;
use carillon_service::profiles::profiles;
use carillon_service::{
    ConnectionOptions, Readiness, Tasks, Timeouts, admin, bind, check, init_logs, options, raise_open_files,
    run, serve, stop_on_signals,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use pprof_alloc::PprofAlloc;

/// The system's allocator, which samples the heap if profiles are enabled.
#[global_allocator]
static ALLOCATOR: PprofAlloc = PprofAlloc::new().with_pprof_sample_rate_from_env(0);

fn main() -> ExitCode {
    let CommandLine { command, config } = options();
    match command {
        Some(Command::Check) => run(check(config.admin_listen)),
        Some(Command::Dead(options)) => run(dead(options)),
        Some(Command::RotateSessionKey(options)) => run(rotate_session_key(options)),
        None => run(replica(config)),
    }
}

async fn replica(config: Config) -> anyhow::Result<()> {
    init_logs();
    config.profiles.sample_heap();
    raise_open_files();
    let recorder = PrometheusBuilder::new().install_recorder()?;
    metrics::describe();
    let broker = Broker::redis(&config.redis_url, config.storage.settings())?;
    let listen = config.listen_on()?;
    let listener = bind("readers", listen, "--listen").await?;
    let admin_listener = bind("probes", config.admin_listen, "--admin-listen").await?;

    let readiness = Readiness::default();
    let tasks = Tasks::new(stop_on_signals());
    let signing = Signing::new(&config.signing)?;
    let identities = Identities::new(&config.identity)?;
    let settings = Settings {
        replica: config.replica_name()?,
        fan_out: config.fanout.into(),
        publishing: config.publishing(listen, &signing, &identities.tokens)?,
        identities,
        demo: config.demo(listen)?,
        upstream: Upstream::new(&config.upstream, &signing)?,
        signing,
        allow: config.allow,
        does_jobs: !config.no_worker,
        static_dir: config.static_dir,
        limits: config.limits,
        timeouts: config.timeouts,
        presence: config.presence,
        clock: Arc::new(now_ms),
        random: Arc::new(random),
    };
    settings.publishing.warn();
    settings.demo.iter().for_each(DemoKey::warn);
    tracing::info!(replica = settings.replica, listen = %listener.local_addr()?, admin.listen = %admin_listener.local_addr()?, "starting");
    let replica = Replica::start(settings, &broker, &readiness, &tasks)?;
    let (draining, observed) = (readiness.clone(), readiness.clone());
    let probes = admin(readiness, move || {
        metrics::observe(&observed);
        recorder.render()
    });
    // The probes answer until the last reader is closed.
    let (timeouts, stop) = (Timeouts::default(), tasks.stop());
    let connections = ConnectionOptions::for_readers(0, metrics::port_limit_reached);
    let probes =
        serve(admin_listener, probes, timeouts, connections.clone(), stop.clone(), replica.readers());
    tasks.spawn("admin port", probes);
    if let Some(at) = config.profiles.listen() {
        let listener = bind("profiles", at, "--pprof-port").await?;
        let profiles = profiles(&config.profiles);
        tasks.spawn(
            "profiles' port",
            serve(listener, profiles, timeouts, connections.clone(), stop.clone(), replica.readers()),
        );
    }
    tasks.spawn("readers' port", replica.serve(listener));
    broker.check_policy().await;

    tasks.stop().cancelled().await;
    draining.drain();
    tasks.join(STOP_DEADLINE).await
}
