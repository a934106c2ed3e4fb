//! From a request to a WebSocket (RFC 6455, section 4.2), on a connection that counts unfinished messages.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::task::TaskTracker;

use super::counted::Counted;
use super::hello::SUBPROTOCOL;
use super::{MESSAGE_MAX_BYTES, READ_BUFFER_BYTES, WRITE_BUFFER_BYTES, WRITE_BUFFER_MAX_BYTES};
use crate::limits::budget::Budget;
use crate::refusal::Refusal;
use crate::request::subprotocols;

/// The server's side of a WebSocket.
pub(crate) type WebSocket = WebSocketStream<Counted<TokioIo<Upgraded>>>;

/// A request that is to be upgraded.
pub(crate) struct Upgrade {
    on_upgrade: OnUpgrade,
    accept: HeaderValue,
    speaks_carillon: bool,
}

/// Returns the upgrade that a request asks for, or a 426.
pub(crate) fn upgrade_of(parts: &mut Parts) -> Result<Upgrade, Refusal> {
    let refused =
        |detail: &str| Refusal::new(StatusCode::UPGRADE_REQUIRED, "WebSocket upgrade required", detail);
    if parts.method != Method::GET {
        return Err(refused("use GET"));
    }
    if !has_token(&parts.headers, &header::CONNECTION, "upgrade") {
        return Err(refused("`Connection` header did not include 'upgrade'"));
    }
    if !has_token(&parts.headers, &header::UPGRADE, "websocket") {
        return Err(refused("`Upgrade` header did not include 'websocket'"));
    }
    if !has_token(&parts.headers, &header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(refused("`Sec-WebSocket-Version` header did not include '13'"));
    }
    let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
    let accept = key.map(|key| derive_accept_key(key.as_bytes())).and_then(|key| key.parse().ok());
    let accept = accept.ok_or_else(|| refused("`Sec-WebSocket-Key` header missing"))?;
    let speaks_carillon = subprotocols(parts).any(|name| name == SUBPROTOCOL);
    let on_upgrade = parts.extensions.remove::<OnUpgrade>();
    let on_upgrade = on_upgrade.ok_or_else(|| refused("this connection cannot be upgraded"))?;
    Ok(Upgrade { on_upgrade, accept, speaks_carillon })
}

fn has_token(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

impl Upgrade {
    /// Answers the request, and runs `serve` on its socket as one of `readers`. Unfinished messages are charged to `budget`.
    pub(crate) fn serve<F: Future<Output = ()> + Send + 'static>(
        self,
        readers: &TaskTracker,
        budget: &Arc<Budget>,
        network: Option<IpNet>,
        serve: impl FnOnce(WebSocket) -> F + Send + 'static,
    ) -> Response {
        let Self { on_upgrade, accept, speaks_carillon } = self;
        let budget = Arc::clone(budget);
        readers.spawn(async move {
            let Ok(upgraded) = on_upgrade.await else { return };
            let counted = Counted::new(TokioIo::new(upgraded), budget, network);
            serve(WebSocketStream::from_raw_socket(counted, Role::Server, Some(config())).await).await;
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if speaks_carillon {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        response
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_MAX_BYTES)
        .max_message_size(Some(MESSAGE_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_MAX_BYTES))
}
