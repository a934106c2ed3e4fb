//! One replica of the backend for frontends: it races for entries, hears what all replicas won, and
//! brings it to the browsers that hang on it. This file wires the stages; each has a file of its own.

mod api;
mod app;
mod asker;
mod body;
mod budget;
pub mod command_line;
mod config;
mod contract;
mod cors;
pub mod dead;
pub mod demo;
mod dispatch;
pub mod feed;
mod frame;
pub mod hub;
pub mod identity;
mod jobs;
pub mod jwks;
mod keys;
mod limits;
mod local;
mod memory;
mod messages;
pub mod metrics;
mod notify;
pub mod origin;
mod outbound;
mod pages;
mod port;
mod presence;
pub mod profiles;
mod reader;
mod reads;
pub mod refill;
mod relay;
mod reply;
mod revocations;
pub mod rotate;
pub mod seal;
mod sealing;
mod server;
mod sessions;
pub mod signature;
pub mod signing;
mod sse;
mod storage;
pub mod token;
mod topics;
mod trace;
pub mod twirp;
mod upstream;
mod users;
mod values;
mod viewer;
mod visit;
mod worker;
mod ws;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get, post};
use carillon_broker::{Broker, FanOut, Subscriptions};
use carillon_protocol::Audience;
use carillon_service::{Readiness, Tasks};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{AllowOptions, Config, FanOutOption, Open, Publishing};
pub use keys::{ApiKeys, KEYS_MAX, Scope};
pub use limits::{LimitOptions, raise_open_files};
pub use presence::PresenceOptions;
pub use server::{Patience, PlaceOptions, serve};
pub use storage::StorageOptions;
pub use upstream::{Upstream, UpstreamOptions};
pub use viewer::viewer;

use app::{App, Shared};
use budget::Budget;
use demo::DemoKey;
use dispatch::Dispatch;
use feed::Feeds;
use hub::Hub;
use identity::Identities;
use limits::Limits;
use memory::Memory;
use messages::Written;
use presence::Roll;
use refill::Refiller;
use relay::Relay;
use reply::Refusal;
use revocations::Revocations;
use sealing::Sealing;
use signing::Signing;
use values::Values;

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
        let places =
            PlaceOptions { room: Some(readiness.latch_for("connections", ROOM_LASTS)), ..limits.places() };
        // What may fail comes before the loops, which would be missed.
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
        tasks.spawn("keys of tokens", identities.tokens.clone().run(tasks.stop().clone()));

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
            Arc::new(now_ms),
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
        let app = App::new(Shared {
            replica,
            broker: broker.clone(),
            feeds: Feeds::new(hub, broker.clone(), fan_out, Arc::new(now_ms)),
            publishing,
            allow,
            limits: Arc::clone(&limits),
            identities,
            signing,
            revocations,
            sealing,
            written,
            jobs,
            upstream,
            memory,
            page_budget: Budget::new(api::PAGES_MAX_BYTES),
            unfinished: Budget::new(ws::UNFINISHED_MAX_BYTES),
            body_budget: Budget::new(body::BODIES_MAX_BYTES),
            clock: Arc::new(now_ms),
            stop: tasks.stop().clone(),
            readers: readers.clone(),
            run,
        });
        let router = router(app, limits, demo, patience, viewer);
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

fn router(
    app: App,
    limits: Arc<Limits>,
    demo: Option<DemoKey>,
    patience: Patience,
    viewer: Option<Router>,
) -> Router {
    let cors = cors::cors(&app.identities.origins);
    let routes = Router::new()
        .route("/api/notifications", get(api::list).post(api::publish))
        .route("/api/notifications/{id}", get(trace::status))
        .route("/api/notifications/{id}/trace", get(trace::trace))
        .route("/api/sessions", post(sessions::open))
        .route("/api/jobs", get(jobs::list).post(jobs::start))
        .route("/api/jobs/{id}", get(jobs::one))
        .route("/api/revocations", post(api::revoke))
        .route("/api/presence", get(presence::many))
        .route("/api/presence/{user}", get(presence::one))
        .route("/api/users/{user}/state", get(users::state).put(users::set_state))
        .route("/api/users/{user}/raw", post(users::raw))
        .route("/twirp/notify.NotifyService/Auth", any(twirp::call))
        .route("/twirp/notify.NotifyService/Publish", any(twirp::call))
        .route("/twirp/notify.NotifyService/State", any(twirp::call))
        .route_service("/twirp/{*path}", any(twirp::call).with_state(app.clone()))
        .merge(demo::router(demo))
        // All above is answered in time. What follows lasts.
        .layer(from_fn_with_state(patience.request_timeout, server::in_time))
        .layer(from_fn_with_state(limits, limits::in_bounds))
        .route("/api", any(nothing_here))
        .route("/api/{*path}", any(nothing_here))
        .layer(from_fn(reply::private))
        .route("/ws", get(ws::upgrade))
        .route("/sse", get(sse::stream))
        .route("/notify/ws", get(notify::upgrade))
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
        .merge(contract::router());
    let routes = match viewer {
        Some(viewer) => routes.fallback_service(viewer),
        None => routes.fallback(nothing_here),
    };
    match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

async fn nothing_here() -> Refusal {
    let detail =
        "this replica serves /ws, /sse and what /docs shows, and the viewer where it is given --static-dir";
    Refusal::new(StatusCode::NOT_FOUND, "nothing here", detail)
}

async fn wrong_method() -> Refusal {
    let detail = "Allow names the methods that are known here, and /docs what they do";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong method", detail)
}

/// Milliseconds since 1970 by this machine's clock.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
