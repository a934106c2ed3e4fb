//! Wires the rooms of one replica, and starts its loops.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use carillon_auth::identity::Identities;
use carillon_broker::{Broker, FanOut, Subscriptions};
use carillon_protocol::Audience;
use carillon_service::{ConnectionOptions, Readiness, Tasks, Timeouts, serve};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::application::upstream::{Outbox, Upstream};
use crate::broker_events::BrokerEvents;
use crate::clock::Clock;
use crate::config::AllowOptions;
use crate::delivery::dispatch::Dispatch;
use crate::delivery::feed::Feeds;
use crate::delivery::hub::Hub;
use crate::delivery::refill::Refiller;
use crate::gate::body::BODIES_MAX_BYTES;
use crate::gate::demo::DemoKey;
use crate::gate::publishing::Publishing;
use crate::gate::revocations::Revocations;
use crate::gate::session_key::SessionKey;
use crate::gate::signed::Signing;
use crate::gate::{Gate, GateState};
use crate::jobs::http::Queue;
use crate::jobs::worker;
use crate::limits::budget::Budget;
use crate::limits::clients::{LimitOptions, Limits};
use crate::metrics;
use crate::notifications::History;
use crate::people::messages::{Messages, TraceSender};
use crate::people::presence::{PresenceOptions, PresenceReporter};
use crate::random::Random;
use crate::router::{Handlers, router};
use crate::sockets::readers::{Readers, Shared};
use crate::sockets::ws::UNFINISHED_MAX_BYTES;
use crate::upkeep::memory::Memory;
use crate::user_state::values::Values;
use crate::viewer::viewer;

/// The longest time from the stop to the end of the process.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// A latch that a loop has to set again and again falls after this time without it: a loop that is stuck or dead cannot
/// report that.
const LATCH_LASTS: Duration = Duration::from_secs(10);

/// A replica without a free place for a connection for this time is not ready.
const ROOM_LASTS: Duration = Duration::from_secs(5);

/// The settings of one replica.
#[derive(Clone)]
pub struct Settings {
    /// The name of the replica, unlike any other in the deployment.
    pub replica: String,
    /// The readers of an entry that it claims.
    pub fan_out: FanOut,
    /// Who may publish over HTTP.
    pub publishing: Publishing,
    /// How users are authenticated.
    pub identities: Identities,
    /// How applications are authenticated.
    pub signing: Signing,
    /// The application that readers send messages to.
    pub upstream: Option<Upstream>,
    /// Lets clients sign in under any name.
    pub demo: Option<DemoKey>,
    /// Rights of clients without a key.
    pub allow: AllowOptions,
    /// Whether it runs workers for jobs.
    pub does_jobs: bool,
    /// The folder with the built viewer.
    pub static_dir: Option<PathBuf>,
    /// The limits of one client.
    pub limits: LimitOptions,
    /// The timeouts for a slow peer.
    pub timeouts: Timeouts,
    /// How long presence lasts without a connection or a replica.
    pub presence: PresenceOptions,
    /// The time, for what has an end: tokens, revocations, presence.
    pub clock: Clock,
    /// Spreads retries.
    pub random: Random,
}

/// A running replica.
pub struct Replica {
    router: Router,
    timeouts: Timeouts,
    connection_options: ConnectionOptions,
    stop: CancellationToken,
    readers: TaskTracker,
}

impl Replica {
    /// Starts the loops of a replica. It serves no requests before [`Replica::serve`] or a front door of the same process
    /// passes them on.
    ///
    /// # Errors
    /// When the folder of the viewer has none.
    pub fn start(
        settings: Settings,
        broker: &Broker,
        readiness: &Readiness,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let Settings {
            replica,
            fan_out,
            publishing,
            identities,
            signing,
            upstream,
            demo,
            allow,
            does_jobs,
            static_dir,
            limits,
            timeouts,
            presence,
            clock,
            random,
        } = settings;
        let room = readiness.latch_for("connections", ROOM_LASTS);
        let connection_options = ConnectionOptions { room: Some(room), ..options_of(&limits) };
        // Steps that may fail come before the loops, which would be left running.
        let viewer = static_dir.map(|folder| viewer(&folder)).transpose()?;
        let replica: Arc<str> = replica.into();
        let run = format!("{replica}-{:06x}", fastrand::u32(..1 << 24));
        let subscriptions = Subscriptions::default();
        subscriptions.add(Audience::Connection(run.clone()));
        let hub = Arc::new(Hub::new(fan_out, subscriptions.clone()));
        let wake = Arc::new(Notify::new());
        let lasting = |name| readiness.latch_for(name, LATCH_LASTS);
        let (received, writes) = (lasting("the fan-out"), lasting("writes"));
        let revocations = Arc::new(Revocations::kept_for(identities.tokens.revocations_keep_s()));
        let keys = identities.tokens.clone().run(tasks.stop().clone(), metrics::key_fetch_failed);
        tasks.spawn("keys of tokens", keys);

        let session_key = SessionKey::new(broker.clone(), Arc::clone(&revocations));
        tasks.spawn("session key", Arc::clone(&session_key).run(tasks.stop().clone()));
        let broker_events = BrokerEvents {
            broker: broker.clone(),
            subscriptions,
            hub: Arc::clone(&hub),
            wake: Arc::clone(&wake),
            received,
            writes,
            fan_out,
            revocations: Arc::clone(&revocations),
            session_key: Arc::clone(&session_key),
        };
        let known = readiness.latch("revocations");
        let watch = Arc::clone(&revocations).run(
            broker.clone(),
            Arc::clone(&hub),
            Arc::clone(&clock),
            known,
            tasks.stop().clone(),
        );
        tasks.spawn("revocations", watch);
        let values = Values { broker: broker.clone(), hub: Arc::clone(&hub) };
        tasks.spawn("values", values.run(tasks.stop().clone()));
        let refiller = Refiller::new(broker.clone(), Arc::clone(&hub));
        tasks.spawn("refill", refiller.run(tasks.stop().clone()));
        let memory = Arc::<Memory>::default();
        tasks.spawn("memory", Arc::clone(&memory).run(broker.clone(), tasks.stop().clone()));
        tasks.spawn("broker events", broker_events.run(tasks.stop().clone()));
        let dispatch = Dispatch {
            broker: broker.clone(),
            hub: Arc::clone(&hub),
            replica: Arc::clone(&replica),
            fan_out,
            wake,
            claims: lasting("claims"),
            random: Arc::clone(&random),
        };
        tasks.spawn("dispatch", dispatch.run(tasks.stop().clone()));

        let (traces, trace_writer) = TraceSender::new(broker.clone(), Arc::clone(&replica));
        tasks.spawn("traces", trace_writer.run(tasks.stop().clone()));

        let jobs = Arc::<Notify>::default();
        if does_jobs {
            worker::spawn(tasks, broker, &replica, &jobs);
        }

        let upstream = upstream.map(|upstream| upstream.start(tasks, broker, &replica));
        let readers = TaskTracker::new();
        let presence_reporter = PresenceReporter {
            broker: broker.clone(),
            hub: Arc::clone(&hub),
            run: run.clone(),
            options: presence,
            readers: readers.clone(),
        };
        tasks.spawn("presence", presence_reporter.run(tasks.stop().clone()));
        let limits = Limits::new(limits);
        let feeds = Feeds::new(hub, broker.clone(), fan_out, Arc::clone(&clock), random);
        let messages = Messages {
            broker: broker.clone(),
            replica: Arc::clone(&replica),
            limits: Arc::clone(&limits),
            memory: Arc::clone(&memory),
            people_send: identities.people_send,
        };
        let outbox = Outbox {
            broker: broker.clone(),
            stored: upstream,
            limits: Arc::clone(&limits),
            memory: Arc::clone(&memory),
            allow_anonymous: allow.anonymous_messages,
            clock: Arc::clone(&clock),
        };
        let gate = Gate::new(GateState {
            broker: broker.clone(),
            publishing,
            limits,
            identities,
            signing,
            revocations,
            session_key,
            bodies: Budget::new(BODIES_MAX_BYTES),
            clock,
        });
        let connections = Readers::new(Shared {
            gate: gate.clone(),
            messages: messages.clone(),
            outbox,
            replica,
            run,
            feeds: Arc::clone(&feeds),
            traces,
            unfinished: Budget::new(UNFINISHED_MAX_BYTES),
            stop: tasks.stop().clone(),
            open: readers.clone(),
        });
        let handlers = Handlers {
            gate,
            broker: broker.clone(),
            history: History::new(broker.clone(), feeds),
            messages,
            queue: Queue { broker: broker.clone(), added: jobs, memory, is_open: allow.jobs },
            readers: connections,
        };
        let router = router(handlers, demo, timeouts, viewer);
        Ok(Self { router, timeouts, connection_options, stop: tasks.stop().clone(), readers })
    }

    /// Returns the routes of this replica, for a front door in the same process.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Returns the connected readers: the probes have to answer until the last of them is closed.
    pub fn readers(&self) -> TaskTracker {
        self.readers.clone()
    }

    /// Serves readers until the stop, closes them one by one, and ends. Until the last reader is closed, new connections are
    /// accepted and get a readable refusal.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener) -> anyhow::Result<()> {
        serve(listener, self.router, self.timeouts, self.connection_options, self.stop, self.readers).await
    }
}

/// Returns the bounds of connections on the port of a replica.
fn options_of(limits: &LimitOptions) -> ConnectionOptions {
    let mut options = ConnectionOptions::for_readers(limits.readers_max, metrics::port_limit_reached);
    options.plain_per_address_max = limits.connections_per_address_max;
    options.shared.extend(&limits.trusted_proxies);
    if limits.trusted_proxy_hops.is_some() {
        // Every peer is a proxy, whose clients are counted for each request.
        options.shared.extend([IpNet::from(Ipv4Net::default()), Ipv6Net::default().into()]);
    }
    options
}
