//! Wires the rooms of one replica: what each is given, and which loops run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use carillon_auth::identity::Identities;
use carillon_broker::{Broker, FanOut, Subscriptions};
use carillon_protocol::Audience;
use carillon_service::{Patience, PlaceOptions, Readiness, Tasks, serve};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::application::upstream::{Outbox, Upstream};
use crate::broker_events::Relay;
use crate::clock::{Clock, now_ms};
use crate::config::AllowOptions;
use crate::delivery::dispatch::Dispatch;
use crate::delivery::feed::Feeds;
use crate::delivery::hub::Hub;
use crate::delivery::refill::Refiller;
use crate::gate::body::BODIES_MAX_BYTES;
use crate::gate::demo::DemoKey;
use crate::gate::publishing::Publishing;
use crate::gate::revocations::Revocations;
use crate::gate::session_key::Sealing;
use crate::gate::signed::Signing;
use crate::gate::{Doors, Gate};
use crate::jobs::http::Queue;
use crate::jobs::worker;
use crate::limits::budget::Budget;
use crate::limits::clients::{LimitOptions, Limits};
use crate::metrics;
use crate::notifications::History;
use crate::people::messages::{Messages, Written};
use crate::people::presence::{PresenceOptions, Roll};
use crate::random::{Random, random};
use crate::router::{Handlers, router};
use crate::sockets::readers::{Readers, Shared};
use crate::sockets::ws::UNFINISHED_MAX_BYTES;
use crate::upkeep::memory::Memory;
use crate::user_state::values::Values;
use crate::viewer::viewer;

/// A process that stops is gone after this.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// What a replica has to show again and again to be ready, it has to show this often: a loop that is stuck or dead
/// cannot say that it is.
const LATCH_LASTS: Duration = Duration::from_secs(10);

/// A replica that has had no place for a connection for so long is not ready.
const ROOM_LASTS: Duration = Duration::from_secs(5);

/// What makes one replica different from another.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name: see [`Config::replica_name`].
    pub replica: String,
    /// Who sees what it claims.
    pub fan_out: FanOut,
    /// Who may publish over HTTP.
    pub publishing: Publishing,
    /// How people prove who they are.
    pub identities: Identities,
    /// How applications prove who they are.
    pub signing: Signing,
    /// The application to which readers speak.
    pub upstream: Option<Upstream>,
    /// Lets anybody sign in as anybody.
    pub demo: Option<DemoKey>,
    /// What is open to more than applications with a key.
    pub allow: AllowOptions,
    /// Whether it does jobs itself.
    pub does_jobs: bool,
    /// Where the built viewer is.
    pub static_dir: Option<PathBuf>,
    /// How much one client may have.
    pub limits: LimitOptions,
    /// How long a peer is waited for.
    pub patience: Patience,
    /// How long presence outlives what it is known by.
    pub presence: PresenceOptions,
}

/// A running replica.
pub struct Replica {
    router: Router,
    patience: Patience,
    places: PlaceOptions,
    stop: CancellationToken,
    readers: TaskTracker,
}

impl Replica {
    /// Starts the loops of a replica. It serves nobody until [`Replica::serve`] or a front door of the
    /// same process hands it requests.
    ///
    /// # Errors
    /// When there is no viewer in the folder that should hold it.
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
            patience,
            presence,
        } = settings;
        let room = readiness.latch_for("connections", ROOM_LASTS);
        let places = PlaceOptions { room: Some(room), ..places(&limits) };
        // What may fail comes before the loops, which would be missed.
        let viewer = static_dir.map(|folder| viewer(&folder)).transpose()?;
        let clock: Clock = Arc::new(now_ms);
        let random: Random = Arc::new(random);
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

        let sealing = Sealing::new(broker.clone(), Arc::clone(&revocations));
        tasks.spawn("session key", Arc::clone(&sealing).run(tasks.stop().clone()));
        let relay = Relay {
            broker: broker.clone(),
            subscriptions,
            hub: Arc::clone(&hub),
            wake: Arc::clone(&wake),
            received,
            writes,
            fan_out,
            revocations: Arc::clone(&revocations),
            sealing: Arc::clone(&sealing),
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
        tasks.spawn("relay", relay.run(tasks.stop().clone()));
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

        let (written, recorder) = Written::new(broker.clone(), Arc::clone(&replica));
        tasks.spawn("traces", recorder.run(tasks.stop().clone()));

        let jobs = Arc::<Notify>::default();
        if does_jobs {
            worker::spawn(tasks, broker, &replica, &jobs);
        }

        let upstream = upstream.map(|upstream| upstream.start(tasks, broker, &replica));
        let readers = TaskTracker::new();
        let roll = Roll {
            broker: broker.clone(),
            hub: Arc::clone(&hub),
            run: run.clone(),
            options: presence,
            readers: readers.clone(),
        };
        tasks.spawn("presence", roll.run(tasks.stop().clone()));
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
            takes_anonymous: allow.anonymous_messages,
            clock: Arc::clone(&clock),
        };
        let gate = Gate::new(Doors {
            broker: broker.clone(),
            publishing,
            limits,
            identities,
            signing,
            revocations,
            sealing,
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
            written,
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
        let router = router(handlers, demo, patience, viewer);
        Ok(Self { router, patience, places, stop: tasks.stop().clone(), readers })
    }

    /// The routes of this replica, for a front door in the same process.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The readers that are connected, to serve the probes until the last of them is gone.
    #[must_use]
    pub fn readers(&self) -> TaskTracker {
        self.readers.clone()
    }

    /// Serves readers until the stop, lets them go one by one, and ends. New connections are still
    /// taken, and refused readably, until the last reader is gone.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener) -> anyhow::Result<()> {
        serve(listener, self.router, self.patience, self.places, self.stop, self.readers).await
    }
}

/// The connections that the port of a replica holds.
fn places(limits: &LimitOptions) -> PlaceOptions {
    let mut options = PlaceOptions::for_readers(limits.readers_max, metrics::port_limit_reached);
    options.plain_per_address_max = limits.connections_per_address_max;
    options.shared.extend(&limits.trusted_proxies);
    if limits.trusted_proxy_hops.is_some() {
        // Every peer is a proxy: its clients are told apart by request.
        options.shared.extend([IpNet::from(Ipv4Net::default()), Ipv6Net::default().into()]);
    }
    options
}
