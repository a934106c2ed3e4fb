//! Every route on one screen: its handler and its limits.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get, post};
use carillon_broker::Broker;
use carillon_service::Timeouts;

use crate::gate::Gate;
use crate::gate::demo::DemoKey;
use crate::jobs::http::Queue;
use crate::notifications::History;
use crate::people::messages::Messages;
use crate::refusal::Refusal;
use crate::sockets::readers::Readers;
use crate::{compat, contract, gate, jobs, limits, notifications, people, refusal, sockets, user_state};

/// The state of handlers, each of which takes the parts that it needs.
macro_rules! handlers {
    ($($name:ident: $part:ty,)*) => {
        #[derive(Clone)]
        pub(crate) struct Handlers {
            $(pub(crate) $name: $part,)*
        }

        $(impl FromRef<Handlers> for $part {
            fn from_ref(handlers: &Handlers) -> Self {
                handlers.$name.clone()
            }
        })*
    };
}

handlers! {
    gate: Gate,
    broker: Broker,
    history: History,
    messages: Messages,
    queue: Queue,
    readers: Readers,
}

/// All routes of a replica.
pub(crate) fn router(
    handlers: Handlers,
    demo: Option<DemoKey>,
    timeouts: Timeouts,
    viewer: Option<Router>,
) -> Router {
    let limits = Arc::clone(&handlers.gate.limits);
    let cors = gate::cors::cors(&handlers.gate.identities.origins);
    let routes = Router::new()
        .route("/api/notifications", get(notifications::list).post(notifications::publish))
        .route("/api/notifications/{id}", get(people::trace::status))
        .route("/api/notifications/{id}/trace", get(people::trace::trace))
        .route("/api/sessions", post(gate::sessions::open))
        .route("/api/jobs", get(jobs::http::list).post(jobs::http::start))
        .route("/api/jobs/{id}", get(jobs::http::one))
        .route("/api/revocations", post(notifications::revoke))
        .route("/api/presence", get(people::presence::many))
        .route("/api/presence/{user}", get(people::presence::one))
        .route("/api/users/{user}/state", get(user_state::http::state).put(user_state::http::set_state))
        .route("/api/users/{user}/raw", post(user_state::http::raw))
        .route("/twirp/notify.NotifyService/Auth", any(compat::twirp::call))
        .route("/twirp/notify.NotifyService/Publish", any(compat::twirp::call))
        .route("/twirp/notify.NotifyService/State", any(compat::twirp::call))
        .route_service("/twirp/{*path}", any(compat::twirp::call).with_state(handlers.clone()))
        .merge(gate::demo::router(demo))
        // All routes above have a timeout. The routes below last.
        .layer(from_fn_with_state(timeouts.request_timeout, limits::request_time::in_time))
        .layer(from_fn_with_state(limits, limits::clients::limit_requests))
        .route("/api", any(not_found))
        .route("/api/{*path}", any(not_found))
        .layer(from_fn(refusal::private))
        .route("/ws", get(sockets::ws::upgrade))
        .route("/sse", get(sockets::sse::stream))
        .route("/notify/ws", get(compat::notify::upgrade))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(handlers)
        .merge(contract::router());
    let routes = match viewer {
        Some(viewer) => routes.fallback_service(viewer),
        None => routes.fallback(not_found),
    };
    match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

async fn not_found() -> Refusal {
    let detail = "this replica serves /ws, /sse, the routes in /docs, and with --static-dir the viewer";
    Refusal::new(StatusCode::NOT_FOUND, "not found", detail)
}

async fn method_not_allowed() -> Refusal {
    let detail = "the header Allow names the methods of this path, and /docs describes them";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", detail)
}
