//! Runs the messages that a reader sends on its socket. A refused message is answered with an `error` frame that names it,
//! and the connection continues.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use carillon_broker::limits::ADVANCE_MAX_IDS;
use carillon_protocol::limits::TOPICS_MAX;
use carillon_protocol::received::StatusChange;
use carillon_protocol::sent::{self, Ack, Read, Send, Subscribe, Token, Unsubscribe};
use carillon_protocol::{
    Audience, ClientMessage, CloseCode, Cursor, Named, ServerMessage, Status, format_timestamp,
};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Dialect, End, Socket, TOO_MANY};
use crate::application::upstream::UpstreamMessage;
use crate::gate::Gate;
use crate::gate::caller::{TOPIC_REFUSED, cursor};
use crate::limits::rate::Rate;
use crate::metrics::{self, Limit};
use crate::refusal::Refusal;
use crate::sockets::readers::Readers;

/// The messages that a reader may send, pings and pongs included: 20 a second, 60 in a row. A reader that only listens sends
/// one pong in 25 s.
pub(super) const MESSAGES: Rate = Rate::every(Duration::from_millis(50), 60);

impl Socket {
    /// Counts one message, of any type.
    pub(super) async fn spend(&mut self) -> Result<(), End> {
        if self.messages.take(1, MESSAGES, Instant::now()).is_ok() {
            return Ok(());
        }
        metrics::limit_reached(Limit::Messages);
        if self.dialect == Dialect::Frames {
            let detail = format!("messages: at most {MESSAGES}");
            self.send_message(&ServerMessage::error("rate_limited", detail, None)).await?;
        }
        Err(TOO_MANY)
    }

    pub(super) async fn receive_text(&mut self, text: &str) -> Result<(), End> {
        match ClientMessage::parse(text) {
            Ok(message) => {
                metrics::message_received(message.kind());
                Box::pin(self.run_message(message)).await
            }
            Err(error) => {
                let detail = format!("a message is a JSON object with a type and its fields: {error}");
                self.send_message(&ServerMessage::error("bad_message", detail, None)).await?;
                Err(End::Close(
                    CloseCode::BAD_MESSAGE,
                    "a message is a JSON object with a type and its fields",
                ))
            }
        }
    }

    async fn run_message(&mut self, message: ClientMessage) -> Result<(), End> {
        match message {
            ClientMessage::Ping => self.heartbeat(false).await,
            ClientMessage::Hello(_) => {
                let detail = "a hello is allowed as the first message only, from clients that name the subprotocol carillon and no token";
                self.refuse("invalid", detail, None).await
            }
            ClientMessage::Subscribe(Subscribe { topic, since }) => self.subscribe(topic, since).await,
            ClientMessage::Unsubscribe(Unsubscribe { topic }) => {
                self.visit.feed.unsubscribe(&Audience::Topic(topic));
                Ok(())
            }
            ClientMessage::Token(Token { token }) => self.refresh(&token).await,
            ClientMessage::Ack(Ack { ids }) => self.acknowledge(&ids).await,
            ClientMessage::Read(Read { cursor, ids }) => self.read(cursor.as_deref(), &ids).await,
            ClientMessage::Send(Send { notification }) => self.send_to_user(notification.get()).await,
            ClientMessage::Message(sent::Message { id, message, data }) => {
                self.send_to_application(id, message.as_deref(), data.as_deref()).await
            }
            ClientMessage::Unknown => Ok(()),
        }
    }

    async fn subscribe(&mut self, topic: String, since: Option<String>) -> Result<(), End> {
        if !self.gate().may_read(self.caller.identity.as_ref(), &topic) {
            return self.refuse("forbidden", TOPIC_REFUSED, Some(topic)).await;
        }
        let topics = self.visit.feed.topics();
        if topics.contains(&topic) {
            return Ok(());
        }
        if topics.len() >= TOPICS_MAX {
            metrics::limit_reached(Limit::Topics);
            let detail = format!("a reader has at most {TOPICS_MAX} topics: unsubscribe from one first");
            return self.refuse("too_many_topics", &detail, Some(topic)).await;
        }
        let since = since.filter(|since| !since.is_empty()).map(|since| cursor(&since));
        match self.visit.feed.subscribe(Audience::Topic(topic.clone()), since) {
            Ok(()) => Ok(()),
            Err(refusal) => self.refuse("too_many_topics", &refusal.to_line(), Some(topic)).await,
        }
    }

    /// Takes a new token of the same user, and unsubscribes from topics that it does not allow any more.
    async fn refresh(&mut self, token: &str) -> Result<(), End> {
        let identity = match self.gate().identity(token, self.caller.network).await {
            Ok(identity) => identity,
            Err(refusal) => return self.refuse_as(&refusal, None).await,
        };
        if self.caller.user() != Some(identity.user.as_str()) {
            let detail =
                "a token refreshes the connection of its own user: open another connection for another user";
            return self.refuse("forbidden", detail, None).await;
        }
        let expires_at_ms = identity.expires_at_ms;
        self.caller.identity = Some(identity);
        let credential = self.caller.credential();
        // The token is checked again now that a revocation finds the reader: one may have arrived since the first check.
        self.readers().feeds.hub().set_credential(self.visit.feed.id(), Arc::new(credential.clone()));
        if self.gate().revocations.is_revoked(&credential) == Some(true) {
            return Err(End::Close(CloseCode::REFUSED, "the token was revoked: sign in again"));
        }
        self.visit.renew(expires_at_ms);
        let identity = self.caller.identity.as_ref();
        let topics = self.visit.feed.topics();
        let forbidden: Vec<_> =
            topics.into_iter().filter(|topic| !self.gate().may_read(identity, topic)).collect();
        for topic in forbidden {
            self.visit.feed.unsubscribe(&Audience::Topic(topic.clone()));
            self.refuse("forbidden", TOPIC_REFUSED, Some(topic)).await?;
        }
        Ok(())
    }

    /// Marks messages as delivered: they are on the reader's screen. Ids of notifications that are not messages between
    /// users are only counted.
    async fn acknowledge(&mut self, ids: &[Named]) -> Result<(), End> {
        if ids.len() > ADVANCE_MAX_IDS {
            return self.refuse("invalid", &too_many_ids(ids.len()), None).await;
        }
        metrics::acknowledged(ids.len());
        self.advance(ids, Status::Delivered).await
    }

    async fn advance(&mut self, ids: &[Named], status: Status) -> Result<(), End> {
        let messages = self.visit.resolve(ids);
        let Some(user) = self.caller.user().filter(|_| !messages.is_empty()) else { return Ok(()) };
        match self.readers().messages.advance(user, &messages, status).await {
            Ok(()) => Ok(()),
            Err(refusal) => self.refuse_as(&refusal, None).await,
        }
    }

    async fn read(&mut self, cursor: Option<&str>, ids: &[Named]) -> Result<(), End> {
        let Some(user) = self.caller.user() else {
            return self.refuse("not_signed_in", NOT_SIGNED_IN, None).await;
        };
        if ids.len() > ADVANCE_MAX_IDS {
            return self.refuse("invalid", &too_many_ids(ids.len()), None).await;
        }
        let marked = match cursor.map(str::parse::<Cursor>).transpose() {
            Ok(None) => Ok(()),
            Ok(Some(cursor)) => self.readers().messages.mark_read(user, &cursor).await,
            Err(error) => return self.refuse("invalid", &format!("cursor: {error}"), None).await,
        };
        if let Err(refusal) = marked {
            return self.refuse_as(&refusal, None).await;
        }
        self.advance(ids, Status::Read).await
    }

    /// Sends a message in the name of the user. The answer is its status, or an error.
    async fn send_to_user(&mut self, json: &str) -> Result<(), End> {
        #[derive(serde::Deserialize)]
        struct IdOnly {
            id: Option<String>,
        }
        let id = serde_json::from_str::<IdOnly>(json).ok().and_then(|id| id.id);
        let Some(identity) = &self.caller.identity else {
            return self.refuse("not_signed_in", NOT_SIGNED_IN, id).await;
        };
        match self.readers().messages.send(identity, json, None).await {
            Ok((id, status)) => {
                let cursor = self.visit.feed.cursor().map(|cursor| cursor.to_string()).unwrap_or_default();
                let at = format_timestamp((self.gate().clock)());
                self.send_message(&ServerMessage::Status(StatusChange { cursor, id, status, at })).await
            }
            Err(refusal) => self.refuse_as(&refusal, id).await,
        }
    }

    /// Stores a message for the application. Only a refusal is answered.
    async fn send_to_application(
        &mut self,
        id: Option<String>,
        message: Option<&str>,
        data: Option<&RawValue>,
    ) -> Result<(), End> {
        let connection = self.visit.connection();
        let message = UpstreamMessage { id: id.as_deref(), message, data };
        match self.readers().outbox.send(&self.caller, &connection, message).await {
            Ok(()) => Ok(()),
            Err((code, detail)) => self.refuse(code, &detail, id).await,
        }
    }

    fn readers(&self) -> &Readers {
        &self.visit.readers
    }

    fn gate(&self) -> &Gate {
        &self.visit.readers.gate
    }

    async fn refuse(&mut self, code: &str, detail: &str, id: Option<String>) -> Result<(), End> {
        metrics::message_refused(code);
        self.send_message(&ServerMessage::error(code, detail, id)).await
    }

    /// Sends the error that corresponds to a refusal over HTTP.
    async fn refuse_as(&mut self, refusal: &Refusal, id: Option<String>) -> Result<(), End> {
        let code = match refusal.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => "forbidden",
            StatusCode::CONFLICT => "conflict",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limited",
            status if status.is_server_error() => "unavailable",
            _ => "invalid",
        };
        self.refuse(code, &refusal.to_line(), id).await
    }
}

/// The detail of an error for a reader who is not signed in.
const NOT_SIGNED_IN: &str = "connect with a token first";

fn too_many_ids(count: usize) -> String {
    format!("{count} ids, at most {ADVANCE_MAX_IDS} in one message")
}
