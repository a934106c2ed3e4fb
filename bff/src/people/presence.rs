//! Reports to the broker which of this replica's users connect or leave, and serves queries of presence.

mod http;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_broker::limits::PRESENCE_BATCH_MAX_USERS;
use carillon_broker::{Beat, Beaten, Broker, BrokerError};
use carillon_protocol::Backoff;
use carillon_service::{DRAIN_DEADLINE, parse_duration};
use clap::Args;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::delivery::hub::Hub;
use crate::metrics;

pub(crate) use http::{many, one};

/// How many reports are sent within one lease.
const REPORTS_IN_A_LEASE: u32 = 3;
/// The longest time between two reports. When a replica has stopped, another one announces within this time that its users
/// left.
const REPORT_EVERY_MAX: Duration = Duration::from_secs(5);
/// The longest pause after a failed report.
const RETRY_CAP_MS: u64 = 1_000;
/// The longest time for the last reports at shutdown.
const LAST_REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long presence lasts without a connection or a replica.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Times")]
pub struct PresenceOptions {
    /// How long the users of a killed replica still count as online
    #[arg(long, env, value_parser = parse_duration, default_value = "15s")]
    pub presence_lease: Duration,
    /// How long a user whose last connection ended still counts as online, so that loading a page again changes nothing
    #[arg(long, env, value_parser = parse_duration, default_value = "5s")]
    pub presence_grace: Duration,
}

impl Default for PresenceOptions {
    fn default() -> Self {
        Self { presence_lease: Duration::from_secs(15), presence_grace: Duration::from_secs(5) }
    }
}

/// Keeps the broker's view of this replica's users in line with the hub's.
pub(crate) struct PresenceReporter {
    pub(crate) broker: Broker,
    pub(crate) hub: Arc<Hub>,
    /// This run of the replica.
    pub(crate) run: String,
    pub(crate) options: PresenceOptions,
    /// The open sockets and streams: reports continue until the last one is closed.
    pub(crate) readers: TaskTracker,
}

impl PresenceReporter {
    /// Reports at once when a user connects or leaves, and in time to keep the lease, until the last reader is closed.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { broker, hub, run, options, readers } = self;
        let mut report = RunReport::new(run, options);
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        let stopped = async {
            stop.cancelled().await;
            let _ = tokio::time::timeout(DRAIN_DEADLINE, readers.wait()).await;
        };
        tokio::pin!(stopped);
        loop {
            report.collect(&hub);
            let (pause, ok) = match report.report_batch(&broker).await {
                Ok(pause) => {
                    backoff.reset();
                    (pause, true)
                }
                Err(error) => {
                    metrics::beat_failed();
                    let wait_ms = backoff.next_ms(fastrand::f64());
                    if backoff.attempt() == 1 {
                        tracing::warn!(retry.ms = wait_ms, %error, "cannot report presence");
                    }
                    (Duration::from_millis(wait_ms), false)
                }
            };
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = hub.user_change_notify().notified(), if ok => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        report.collect(&hub);
        if !matches!(tokio::time::timeout(LAST_REPORT_TIMEOUT, report.end(&broker)).await, Ok(Ok(()))) {
            tracing::warn!(
                "cannot end the run: users of this replica count as online until its lease expires"
            );
        }
        Ok(())
    }
}

/// What this run has reported to the broker, and the changes not yet reported.
///
/// After lost data or an outage longer than the lease, it is unknown which reports still count. Then the run registers all
/// users again under a new name, and ends the old one.
struct RunReport {
    run: String,
    options: PresenceOptions,
    /// How often the run has registered again.
    renames: u32,
    /// The old name, while it may still count.
    old_name: Option<String>,
    /// The epoch in which the name is registered.
    epoch: Option<String>,
    last_beat: Instant,
    /// Whether the run has to register again.
    must_register: bool,
    /// Users whose connections have changed, with their number of connections: at most the users that have a connection
    /// here, or had one within a lease.
    unreported: BTreeMap<String, usize>,
}

impl RunReport {
    fn new(run: String, options: PresenceOptions) -> Self {
        Self {
            run,
            options,
            renames: 0,
            old_name: None,
            epoch: None,
            last_beat: Instant::now(),
            must_register: false,
            unreported: BTreeMap::new(),
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.run, self.renames)
    }

    /// Collects the changes from the hub.
    fn collect(&mut self, hub: &Hub) {
        let changed = hub.users_changed();
        if !self.must_register {
            self.unreported.extend(changed);
            return;
        }
        self.must_register = false;
        self.old_name = Some(self.name());
        self.renames += 1;
        self.epoch = None;
        self.unreported = hub.users().into_iter().collect();
    }

    /// Reports the next batch of changes; returns the delay until the next report.
    async fn report_batch(&mut self, broker: &Broker) -> Result<Duration, BrokerError> {
        let lease = self.options.presence_lease;
        let changes: Vec<_> = self
            .unreported
            .iter()
            .take(PRESENCE_BATCH_MAX_USERS)
            .map(|(user, connections)| (user.clone(), *connections))
            .collect();
        let beaten = match self.send(broker, &self.name(), lease, &changes).await {
            Ok(beaten) => beaten,
            Err(error) => {
                if self.last_beat.elapsed() >= lease {
                    self.must_register = true;
                    self.unreported.clear();
                }
                return Err(error);
            }
        };
        self.last_beat = Instant::now();
        for (user, _) in &changes {
            self.unreported.remove(user);
        }
        let is_known = beaten.held && self.epoch.as_ref() == Some(&beaten.epoch);
        self.must_register = self.epoch.is_some() && !is_known;
        self.epoch = Some(beaten.epoch);
        if self.must_register || beaten.more || !self.unreported.is_empty() {
            return Ok(Duration::ZERO);
        }
        if let Some(old_name) = self.old_name.take() {
            self.send(broker, &old_name, Duration::ZERO, &[]).await?;
        }
        let renew = (lease / REPORTS_IN_A_LEASE).min(REPORT_EVERY_MAX);
        Ok(beaten.due.map_or(renew, |due| due.min(renew)))
    }

    /// Reports the remaining changes, and ends the run.
    async fn end(&mut self, broker: &Broker) -> Result<(), BrokerError> {
        while !self.unreported.is_empty() {
            self.report_batch(broker).await?;
        }
        self.send(broker, &self.name(), Duration::ZERO, &[]).await?;
        Ok(())
    }

    async fn send(
        &self,
        broker: &Broker,
        run: &str,
        lease: Duration,
        changes: &[(String, usize)],
    ) -> Result<Beaten, BrokerError> {
        let grace = self.options.presence_grace;
        broker.beat(&Beat { run, lease, grace, changes, returns: self.renames > 0 }).await
    }
}
