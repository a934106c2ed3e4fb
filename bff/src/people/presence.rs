//! Tells the broker who of this replica's users came or went, and answers who is online.

mod asked;

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

#[cfg(test)]
pub(crate) use asked::Told;
pub(crate) use asked::{many, one};

/// The lease is renewed this often while it lasts.
const BEATS_IN_A_LEASE: u32 = 3;
/// And at least this often: whoever left a replica that has stopped since is reported by another one then.
const BEAT_EVERY_MAX: Duration = Duration::from_secs(5);
/// The longest pause after a beat that failed.
const RETRY_CAP_MS: u64 = 1_000;
/// At the end, what is left to say has this long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long presence outlives what it is known by.
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
pub(crate) struct Roll {
    pub(crate) broker: Broker,
    pub(crate) hub: Arc<Hub>,
    /// This run of the replica.
    pub(crate) run: String,
    pub(crate) options: PresenceOptions,
    /// Open sockets and streams, to go on until the last is gone.
    pub(crate) readers: TaskTracker,
}

impl Roll {
    /// Beats at once when somebody comes or goes, and in time to keep the lease, until the last reader is gone.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { broker, hub, run, options, readers } = self;
        let mut line = Line::new(run, options);
        let mut backoff = Backoff::new(100, RETRY_CAP_MS);
        let over = async {
            stop.cancelled().await;
            let _ = tokio::time::timeout(DRAIN_DEADLINE, readers.wait()).await;
        };
        tokio::pin!(over);
        loop {
            line.hear(&hub);
            let (pause, well) = match line.beat(&broker).await {
                Ok(pause) => {
                    backoff.reset();
                    (pause, true)
                }
                Err(error) => {
                    metrics::beat_failed();
                    let wait_ms = backoff.next_ms(fastrand::f64());
                    if backoff.attempt() == 1 {
                        tracing::warn!(retry.ms = wait_ms, %error, "cannot tell who is online");
                    }
                    (Duration::from_millis(wait_ms), false)
                }
            };
            tokio::select! {
                biased;
                () = &mut over => break,
                () = hub.user_change_notify().notified(), if well => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        line.hear(&hub);
        if !matches!(tokio::time::timeout(FAREWELL_TIMEOUT, line.end(&broker)).await, Ok(Ok(()))) {
            tracing::warn!("users of this replica count as online until its lease is over");
        }
        Ok(())
    }
}

/// What is said of one run, and what is still to be said.
///
/// A data set that was lost, or an outage that outlasted the lease, leaves open what of it still stands: then
/// all is said again under a new name, and the old name ends.
struct Line {
    run: String,
    options: PresenceOptions,
    /// How often all was said again.
    renamed: u32,
    /// The old name, while it may still count.
    old: Option<String>,
    /// The data set that knows the name.
    known_in: Option<String>,
    last_beat: Instant,
    /// All is to be said again.
    lost: bool,
    /// Users whose connections have changed, with how many there are now: no more than have some here, or
    /// had within a lease.
    unsaid: BTreeMap<String, usize>,
}

impl Line {
    fn new(run: String, options: PresenceOptions) -> Self {
        Self {
            run,
            options,
            renamed: 0,
            old: None,
            known_in: None,
            last_beat: Instant::now(),
            lost: false,
            unsaid: BTreeMap::new(),
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.run, self.renamed)
    }

    /// Takes in who came or went.
    fn hear(&mut self, hub: &Hub) {
        let changed = hub.users_changed();
        if !self.lost {
            self.unsaid.extend(changed);
            return;
        }
        self.lost = false;
        self.old = Some(self.name());
        self.renamed += 1;
        self.known_in = None;
        self.unsaid = hub.users().into_iter().collect();
    }

    /// Says what is to be said next, and tells when to do so again.
    async fn beat(&mut self, broker: &Broker) -> Result<Duration, BrokerError> {
        let lease = self.options.presence_lease;
        let changes: Vec<_> = self
            .unsaid
            .iter()
            .take(PRESENCE_BATCH_MAX_USERS)
            .map(|(user, connections)| (user.clone(), *connections))
            .collect();
        let beaten = match self.say(broker, &self.name(), lease, &changes).await {
            Ok(beaten) => beaten,
            Err(error) => {
                if self.last_beat.elapsed() >= lease {
                    self.lost = true;
                    self.unsaid.clear();
                }
                return Err(error);
            }
        };
        self.last_beat = Instant::now();
        for (user, _) in &changes {
            self.unsaid.remove(user);
        }
        let is_known = beaten.held && self.known_in.as_ref() == Some(&beaten.epoch);
        self.lost = self.known_in.is_some() && !is_known;
        self.known_in = Some(beaten.epoch);
        if self.lost || beaten.more || !self.unsaid.is_empty() {
            return Ok(Duration::ZERO);
        }
        if let Some(old) = self.old.take() {
            self.say(broker, &old, Duration::ZERO, &[]).await?;
        }
        let renew = (lease / BEATS_IN_A_LEASE).min(BEAT_EVERY_MAX);
        Ok(beaten.due.map_or(renew, |due| due.min(renew)))
    }

    /// Says the rest, and ends the run.
    async fn end(&mut self, broker: &Broker) -> Result<(), BrokerError> {
        while !self.unsaid.is_empty() {
            self.beat(broker).await?;
        }
        self.say(broker, &self.name(), Duration::ZERO, &[]).await?;
        Ok(())
    }

    async fn say(
        &self,
        broker: &Broker,
        run: &str,
        lease: Duration,
        changes: &[(String, usize)],
    ) -> Result<Beaten, BrokerError> {
        let grace = self.options.presence_grace;
        broker.beat(&Beat { run, lease, grace, changes, returns: self.renamed > 0 }).await
    }
}
