use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use tower::ServiceExt;

use crate::sticky;

/// The paths that replicas serve: whole paths, and prefixes that end in a slash; all others are the viewer's. This is not a
/// router, whose captures would be added to those of the replica.
const REPLICA_PATHS: [&str; 9] =
    ["/ws", "/sse", "/api/", "/notify/", "/twirp/", "/docs", "/docs/", "/openapi.json", "/asyncapi.json"];

/// A replica of this process.
pub(crate) struct DoorReplica {
    name: String,
    router: Router,
    cookie: HeaderValue,
}

impl DoorReplica {
    pub(crate) fn new(name: &str, router: Router) -> anyhow::Result<Self> {
        let cookie = sticky::set(name).with_context(|| format!("'{name}' cannot be a cookie's value"))?;
        Ok(Self { name: name.to_owned(), router, cookie })
    }
}

/// The front door of the demo: it serves the viewer, and passes all other requests to the replica that the cookie names. It
/// calls that replica inside this process and is not a proxy, so a WebSocket is the replica's own.
pub(crate) fn door(replicas: Vec<DoorReplica>, viewer: Router) -> Router {
    assert!(!replicas.is_empty(), "a door leads somewhere");
    let door = Door { replicas, viewer, next: AtomicUsize::new(0) };
    Router::new().fallback(handle).with_state(Arc::new(door))
}

struct Door {
    replicas: Vec<DoorReplica>,
    viewer: Router,
    /// The replica for the next browser without a cookie.
    next: AtomicUsize,
}

async fn handle(State(door): State<Arc<Door>>, request: Request) -> Response {
    let path = request.uri().path();
    let is = |handed: &str| path == handed || (handed.ends_with('/') && path.starts_with(handed));
    if !REPLICA_PATHS.into_iter().any(is) {
        let Ok(response) = door.viewer.clone().oneshot(request).await;
        return response;
    }
    let known = door.known(request.headers());
    let replica = known.unwrap_or_else(|| door.pick());
    let Ok(mut response) = replica.router.clone().oneshot(request).await;
    if known.is_none() {
        response.headers_mut().append(header::SET_COOKIE, replica.cookie.clone());
    }
    response
}

impl Door {
    fn known(&self, headers: &HeaderMap) -> Option<&DoorReplica> {
        let name = sticky::replica_of(headers)?;
        self.replicas.iter().find(|replica| replica.name == name)
    }

    fn pick(&self) -> &DoorReplica {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.replicas[turn % self.replicas.len()]
    }
}
