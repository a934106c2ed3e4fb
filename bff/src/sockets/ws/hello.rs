//! The first message of clients that keep their secrets out of the URL. A client that names the subprotocol `carillon`
//! without a token in the subprotocols sends a `hello` first, and then gets its welcome.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use carillon_protocol::{ClientMessage, CloseCode, Hello, ServerMessage};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::command::MESSAGES;
use super::{
    CLOSE_TIMEOUT, DRAINING, Dialect, End, Socket, TOO_MANY, WebSocket, close, ended_by, upgrade_of,
};
use crate::gate::caller::{BEARER, Credentials, SESSION, cursor};
use crate::limits::clients::ReaderPermit;
use crate::limits::rate::Bucket;
use crate::metrics::{self, Limit};
use crate::refusal::Refusal;
use crate::request::{secret, subprotocols};
use crate::sockets::readers::Readers;

/// The subprotocol of `/ws`.
pub(super) const SUBPROTOCOL: &str = "carillon";
/// A client that has not sent its first message after this time is closed.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the client sends a `hello` first.
pub(super) fn is_expected(parts: &Parts) -> bool {
    let has_secret = [BEARER, SESSION].iter().any(|prefix| secret(parts, prefix).is_some());
    subprotocols(parts).any(|name| name == SUBPROTOCOL) && !has_secret
}

/// Upgrades the request, within the limits, and serves the client once it has sent its `hello`.
pub(super) async fn upgrade(readers: Readers, mut parts: Parts) -> Result<Response, Refusal> {
    readers.gate.allow_origin(&parts)?;
    let upgrade = upgrade_of(&mut parts)?;
    let network = readers.gate.limits.network(&parts);
    let permit = readers.gate.limits.admit(None, network)?;
    let (open, unfinished) = (readers.open.clone(), readers.unfinished.clone());
    Ok(upgrade.serve(&open, &unfinished, network, move |mut socket| async move {
        let first = tokio::select! {
            first = hello(&mut socket) => first,
            () = readers.stop.cancelled() => Err(DRAINING),
        };
        match first {
            Ok(hello) => serve(readers, parts, socket, hello, permit).await,
            Err(End::Close(code, reason)) => close(&mut socket, code, reason).await,
            Err(End::Gone) => {}
        }
    }))
}

/// Receives the first message, which must be a `hello`.
async fn hello(socket: &mut WebSocket) -> Result<Hello, End> {
    const EXPECTED: End = End::Close(CloseCode::BAD_MESSAGE, "the first message is a hello, within 10 s");
    let mut pings = Bucket::full(Instant::now());
    let first = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_)))
                    if pings.take(1, MESSAGES, Instant::now()).is_ok() => {}
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                    metrics::limit_reached(Limit::Messages);
                    return Err(TOO_MANY);
                }
                Some(Ok(Message::Text(text))) => {
                    return match ClientMessage::parse(&text) {
                        Ok(ClientMessage::Hello(hello)) => {
                            metrics::message_received("hello");
                            Ok(hello)
                        }
                        _ => Err(EXPECTED),
                    };
                }
                Some(Ok(Message::Binary(_))) => return Err(EXPECTED),
                Some(Err(error)) => return Err(ended_by(&error)),
                Some(Ok(Message::Close(_) | Message::Frame(_))) | None => return Err(End::Gone),
            }
        }
    };
    timeout(HELLO_TIMEOUT, first).await.unwrap_or(Err(EXPECTED))
}

async fn serve(readers: Readers, parts: Parts, mut socket: WebSocket, hello: Hello, permit: ReaderPermit) {
    let Hello { token, session, topics, since } = hello;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let mut credentials = Credentials::of(&readers.gate, &parts);
    credentials.token = filled(token).or(credentials.token);
    credentials.session = filled(session).or(credentials.session);
    credentials.topics.extend(topics);
    let since = filled(since).map(|since| cursor(&since));
    let joined = async {
        let caller = readers.gate.identify(&parts, credentials).await?;
        // The reader takes its own permit, for the user that it turned out to be.
        drop(permit);
        let (feed, welcome) = readers.join(&caller, since).await?;
        Ok::<_, Refusal>((caller, feed, welcome))
    };
    match joined.await {
        Ok((caller, feed, welcome)) => {
            let welcome = ServerMessage::Welcome(welcome).to_json();
            Socket::new(socket, readers, caller, feed, Dialect::Frames).serve(welcome).await;
        }
        Err(refusal) => {
            metrics::reader_refused(refusal.status().as_u16());
            let (code, error_code) = match refusal.status() {
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                    (CloseCode::TRY_LATER, "unavailable")
                }
                _ => (CloseCode::REFUSED, "forbidden"),
            };
            let error = ServerMessage::error(error_code, refusal.to_line(), None).to_json();
            let _ = timeout(CLOSE_TIMEOUT, socket.send(Message::text(error))).await;
            close(&mut socket, code, "the hello was refused; see the error before this").await;
        }
    }
}
