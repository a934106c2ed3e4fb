//! Every route on one screen: who answers it, and within which bounds.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get, post};
use carillon_broker::Broker;
use carillon_service::Patience;

use crate::gate::Gate;
use crate::gate::demo::DemoKey;
use crate::jobs::http::Queue;
use crate::notifications::History;
use crate::people::messages::Messages;
use crate::refusal::Refusal;
use crate::sockets::readers::Readers;
use crate::{compat, contract, gate, jobs, limits, notifications, people, refusal, sockets, user_state};

/// What handlers take as their state, each no more than it needs.
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
    patience: Patience,
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
        // All above is answered in time. What follows lasts.
        .layer(from_fn_with_state(patience.request_timeout, limits::request_time::in_time))
        .layer(from_fn_with_state(limits, limits::clients::in_bounds))
        .route("/api", any(nothing_here))
        .route("/api/{*path}", any(nothing_here))
        .layer(from_fn(refusal::private))
        .route("/ws", get(sockets::ws::upgrade))
        .route("/sse", get(sockets::sse::stream))
        .route("/notify/ws", get(compat::notify::upgrade))
        .method_not_allowed_fallback(wrong_method)
        .with_state(handlers)
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
    Refusal::new(StatusCode::NOT_FOUND, "not found", detail)
}

async fn wrong_method() -> Refusal {
    let detail = "Allow names the methods that are known here, and /docs what they do";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", detail)
}
