//! What a reader says on its socket, and what comes of it. What is refused is answered with an `error`
//! frame that names it, and the connection goes on.

use std::sync::Arc;

use axum::http::StatusCode;
use carillon_broker::limits::ADVANCE_MAX_IDS;
use carillon_protocol::limits::TOPICS_MAX;
use carillon_protocol::{
    Audience, ClientMessage, CloseCode, Cursor, ServerMessage, Status, format_timestamp,
};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{Dialect, End, Socket};
use crate::hub::connection_id;
use crate::metrics::{self, Limit};
use crate::reader::{TOPIC_REFUSED, credential};
use crate::reply::Refusal;
use crate::upstream::Said;

/// Messages that a reader may say in a row, pings and pongs included; this many per second in the long run come
/// back. A client that only listens says one pong in 25 s.
const BURST_MAX_MESSAGES: u32 = 60;
const MESSAGES_PER_SECOND: f64 = 20.0;

/// How much a reader may say: a bucket that fills with time.
pub(super) struct Allowance {
    left: f64,
    counted: Instant,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self { left: f64::from(BURST_MAX_MESSAGES), counted: Instant::now() }
    }

    /// Takes one, if there is one.
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let filled = self.left + (now - self.counted).as_secs_f64() * MESSAGES_PER_SECOND;
        (self.left, self.counted) = (filled.min(f64::from(BURST_MAX_MESSAGES)), now);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

impl Socket {
    /// Counts one message, of whichever kind.
    pub(super) async fn spend(&mut self) -> Result<(), End> {
        if self.allowance.take() {
            return Ok(());
        }
        metrics::limit_reached(Limit::Messages);
        if self.dialect == Dialect::Frames {
            let detail =
                format!("at most {MESSAGES_PER_SECOND} messages a second, {BURST_MAX_MESSAGES} in a row");
            self.say(&ServerMessage::error("rate_limited", detail, None)).await?;
        }
        Err(End::Close(CloseCode::LIMIT, "too many messages"))
    }

    pub(super) async fn hear_text(&mut self, text: &str) -> Result<(), End> {
        match ClientMessage::parse(text) {
            Ok(message) => {
                metrics::heard(message.kind());
                Box::pin(self.obey(message)).await
            }
            Err(error) => {
                let detail = format!("a message is a JSON object with a type and its fields: {error}");
                self.say(&ServerMessage::error("bad_message", detail, None)).await?;
                Err(End::Close(
                    CloseCode::BAD_MESSAGE,
                    "a message is a JSON object with a type and its fields",
                ))
            }
        }
    }

    async fn obey(&mut self, message: ClientMessage) -> Result<(), End> {
        match message {
            ClientMessage::Ping => self.heartbeat(false).await,
            ClientMessage::Subscribe { topic } => self.subscribe(topic).await,
            ClientMessage::Unsubscribe { topic } => {
                self.app.feeds.hub().unsubscribe(self.feed.id(), &Audience::Topic(topic));
                Ok(())
            }
            ClientMessage::Token { token } => self.refresh(&token).await,
            ClientMessage::Ack { ids } => self.acknowledge(&ids).await,
            ClientMessage::Read { cursor, ids } => self.read(cursor.as_deref(), &ids).await,
            ClientMessage::Send { notification } => self.send_in_name(notification.get()).await,
            ClientMessage::Message { id, message, data } => {
                self.tell_application(id, message.as_deref(), data.as_deref()).await
            }
            ClientMessage::Unknown => Ok(()),
        }
    }

    async fn subscribe(&mut self, topic: String) -> Result<(), End> {
        let hub = self.app.feeds.hub();
        if !self.app.may_read(self.caller.identity.as_ref(), &topic) {
            return self.refuse("forbidden", TOPIC_REFUSED, Some(topic)).await;
        }
        if topics(&hub.audiences(self.feed.id())).count() >= TOPICS_MAX {
            metrics::limit_reached(Limit::Topics);
            let detail = format!("a reader has at most {TOPICS_MAX} topics: leave one first");
            return self.refuse("too_many_topics", &detail, Some(topic)).await;
        }
        hub.subscribe(self.feed.id(), &Audience::Topic(topic));
        Ok(())
    }

    /// Takes a fresh token of the same user. Topics that it does not open any more are left.
    async fn refresh(&mut self, token: &str) -> Result<(), End> {
        let identity = match self.app.identity(token).await {
            Ok(identity) => identity,
            Err(refusal) => return self.refuse_as(&refusal, None).await,
        };
        if self.caller.user() != Some(identity.user.as_str()) {
            let detail = "a token refreshes the connection of its own user: connect anew to be another";
            return self.refuse("forbidden", detail, None).await;
        }
        let (hub, id) = (self.app.feeds.hub(), self.feed.id());
        let fresh = credential(&identity);
        // Looked at again now that a revocation finds the reader: one may have come between.
        hub.admit(id, Arc::new(fresh.clone()));
        if self.app.revocations.refuse(&fresh) == Some(true) {
            return Err(End::Close(CloseCode::REFUSED, "the token was revoked: sign in again"));
        }
        self.expires = Some(self.app.instant(identity.expires_at_ms));
        let closed: Vec<_> = topics(&hub.audiences(id))
            .filter(|topic| !self.app.may_read(Some(&identity), topic))
            .map(str::to_owned)
            .collect();
        self.caller.identity = Some(identity);
        for topic in closed {
            self.app.feeds.hub().unsubscribe(id, &Audience::Topic(topic.clone()));
            self.refuse("forbidden", TOPIC_REFUSED, Some(topic)).await?;
        }
        Ok(())
    }

    /// These are on the reader's screen. What is no message to this user is a broadcast, and counted.
    async fn acknowledge(&mut self, ids: &[String]) -> Result<(), End> {
        if ids.len() > ADVANCE_MAX_IDS {
            return self.refuse("invalid", &too_many_ids(ids.len()), None).await;
        }
        metrics::acknowledged(ids.len());
        let Some(user) = self.caller.user() else { return Ok(()) };
        match self.app.advance(user, ids, Status::Delivered).await {
            Ok(()) => Ok(()),
            Err(refusal) => self.refuse_as(&refusal, None).await,
        }
    }

    async fn read(&mut self, cursor: Option<&str>, ids: &[String]) -> Result<(), End> {
        let Some(user) = self.caller.user() else {
            return self.refuse("not_signed_in", NOT_SIGNED_IN, None).await;
        };
        if ids.len() > ADVANCE_MAX_IDS {
            return self.refuse("invalid", &too_many_ids(ids.len()), None).await;
        }
        let cursor = match cursor.map(str::parse::<Cursor>).transpose() {
            Ok(cursor) => cursor,
            Err(error) => return self.refuse("invalid", &format!("cursor: {error}"), None).await,
        };
        let mut done = self.app.advance(user, ids, Status::Read).await;
        if let (Ok(()), Some(cursor)) = (&done, cursor) {
            let marked = self.app.broker.mark_read(user, &cursor, &self.app.replica).await;
            done = marked.map(|_| ()).map_err(Refusal::from);
        }
        match done {
            Ok(()) => Ok(()),
            Err(refusal) => self.refuse_as(&refusal, None).await,
        }
    }

    /// Sends in the name of the user. The answer is the status of the message, or why there is none.
    async fn send_in_name(&mut self, json: &str) -> Result<(), End> {
        #[derive(serde::Deserialize)]
        struct Named {
            id: Option<String>,
        }
        let about = serde_json::from_str::<Named>(json).ok().and_then(|named| named.id);
        let Some(identity) = &self.caller.identity else {
            return self.refuse("not_signed_in", NOT_SIGNED_IN, about).await;
        };
        match self.app.send(identity, json, None).await {
            Ok((id, status)) => {
                let cursor = self.feed.cursor().map(|cursor| cursor.to_string()).unwrap_or_default();
                let at = format_timestamp((self.app.clock)());
                self.say(&ServerMessage::Status { cursor, id, status, at }).await
            }
            Err(refusal) => self.refuse_as(&refusal, about).await,
        }
    }

    /// Stores something for the application. There is no answer unless it is refused.
    async fn tell_application(
        &mut self,
        id: Option<String>,
        message: Option<&str>,
        data: Option<&RawValue>,
    ) -> Result<(), End> {
        let connection = connection_id(&self.app.run, self.feed.id());
        let said = Said { id: id.as_deref(), message, data };
        match self.app.tell_application(&self.caller, &connection, said).await {
            Ok(()) => Ok(()),
            Err((code, detail)) => self.refuse(code, &detail, id).await,
        }
    }

    async fn refuse(&mut self, code: &str, detail: &str, about: Option<String>) -> Result<(), End> {
        metrics::message_refused(code);
        self.say(&ServerMessage::error(code, detail, about)).await
    }

    /// Says what HTTP would have been answered with.
    async fn refuse_as(&mut self, refusal: &Refusal, about: Option<String>) -> Result<(), End> {
        let code = match refusal.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => "forbidden",
            StatusCode::CONFLICT => "conflict",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limited",
            status if status.is_server_error() => "unavailable",
            _ => "invalid",
        };
        self.refuse(code, &refusal.words(), about).await
    }
}

/// Why somebody may not speak in a name.
const NOT_SIGNED_IN: &str = "connect with a token first";

fn too_many_ids(count: usize) -> String {
    format!("{count} ids, at most {ADVANCE_MAX_IDS} in one message")
}

/// The topics among some audiences.
fn topics(audiences: &[Audience]) -> impl Iterator<Item = &str> {
    audiences.iter().filter_map(|audience| match audience {
        Audience::Topic(topic) => Some(topic.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_say_a_burst_and_then_so_much_a_second() {
        let mut allowance = Allowance::new();
        for _ in 0..BURST_MAX_MESSAGES {
            assert!(allowance.take());
        }
        assert!(!allowance.take());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(allowance.take() && allowance.take() && !allowance.take());
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..BURST_MAX_MESSAGES {
            assert!(allowance.take());
        }
        assert!(!allowance.take());
    }
}
