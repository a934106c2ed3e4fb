//! A replica: the one that runs in production, over the server in this process, reached over a network of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::ConnectInfo;
use carillon_auth::identity::{Identities, IdentityOptions};
use carillon_bff::signed::Signing;
use carillon_bff::{AllowOptions, Clock, LimitOptions, PresenceOptions, Publishing, Replica, Settings};
use carillon_broker::{Broker, FanOut, Link};
use carillon_service::{Readiness, Tasks, Timeouts};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::network::Path;
use crate::plan::TOPIC;

/// Signs the tokens of the users.
pub(crate) const SECRET: &str = "a secret of thirty-two characters";

/// One that runs.
pub(crate) struct Node {
    pub(crate) name: String,
    /// Its way to Redis.
    pub(crate) link: Link,
    router: Router,
    tasks: Tasks,
    pub(crate) readers: TaskTracker,
    pub(crate) readiness: Readiness,
    paths: Vec<Path>,
    drained: CancellationToken,
    /// Whether its end was asked for.
    pub(crate) is_stopping: bool,
}

impl Node {
    pub(crate) fn start(name: String, broker: &Broker, link: Link, clock: Clock) -> anyhow::Result<Self> {
        let identities = IdentityOptions {
            jwt_secret: vec![SECRET.into()],
            public_topics: vec![TOPIC.to_owned()],
            people_send: true,
            ..IdentityOptions::default()
        };
        let settings = Settings {
            replica: name.clone(),
            fan_out: FanOut::All,
            publishing: Publishing::default(),
            identities: Identities::new(&identities)?,
            signing: Signing::default(),
            upstream: None,
            demo: None,
            allow: AllowOptions { jobs: false, anonymous_messages: false },
            does_jobs: false,
            static_dir: None,
            limits: LimitOptions::default(),
            timeouts: Timeouts::default(),
            presence: PresenceOptions::default(),
            clock,
            random: Arc::new(fastrand::f64),
        };
        let (readiness, tasks) = (Readiness::default(), Tasks::new(CancellationToken::new()));
        let replica = Replica::start(settings, broker, &readiness, &tasks)?;
        Ok(Self {
            name,
            link,
            router: replica.router(),
            readers: replica.readers(),
            tasks,
            readiness,
            paths: Vec::new(),
            drained: CancellationToken::new(),
            is_stopping: false,
        })
    }

    /// Serves a connection.
    pub(crate) fn accept(&mut self, io: DuplexStream, path: Path, tasks: &TaskTracker) {
        self.paths.push(path);
        let (router, drained) = (self.router.clone(), self.drained.clone());
        let peer = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 1_000));
        tasks.spawn(async move {
            let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo(peer));
                router.clone().oneshot(request)
            });
            let serving = http1::Builder::new().serve_connection(TokioIo::new(io), service).with_upgrades();
            tokio::select! {
                biased;
                () = drained.cancelled() => {}
                _ = serving => {}
            }
        });
    }

    /// Whether one of its loops has ended it.
    pub(crate) fn has_failed(&self) -> bool {
        !self.is_stopping && self.tasks.stop().is_cancelled()
    }

    /// SIGTERM: readers are let go one by one.
    pub(crate) fn stop(&mut self) {
        self.is_stopping = true;
        self.tasks.stop().cancel();
        self.readers.close();
    }

    /// What is still open is cut, and nothing reaches Redis any more.
    pub(crate) fn end(&mut self) {
        self.is_stopping = true;
        self.link.refuse(true);
        self.paths.drain(..).for_each(|path| path.cut());
        self.drained.cancel();
        self.tasks.stop().cancel();
    }
}
