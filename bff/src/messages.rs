//! Messages between people: sent in the name of the signed-in user, acknowledged and read by the one whom
//! they are for, and accounted for.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::request::Parts;
use carillon_broker::{Accepted, Broker, Message, NewMessage};
use carillon_protocol::limits::{NAME_MAX_BYTES, SEND_MAX_BYTES, WAITING_MAX_ENTRIES};
use carillon_protocol::{Audience, FieldError, Status, sent_by};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{invalid, list_full};
use crate::app::App;
use crate::asker::{Asker, who_asks};
use crate::limits::Publisher;
use crate::metrics;
use crate::reply::Refusal;
use crate::token::Identity;

/// Writings that wait to be noted in the ledger; what comes beyond is not in any trace.
const WRITTEN_MAX: usize = 1_024;

impl App {
    /// Sends a notification in the name of a user, to a user or to a topic that their token names: what anybody
    /// may read, not everybody may write. Returns its id, given by `new_id` where it has none, and how far it
    /// has come.
    pub(crate) async fn send(
        &self,
        sender: &Identity,
        json: &str,
        new_id: Option<String>,
    ) -> Result<(String, Status), Refusal> {
        if json.len() > SEND_MAX_BYTES {
            let detail = format!("a message between people has at most {SEND_MAX_BYTES} bytes");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too large", detail));
        }
        self.limits.publish(&Publisher::User(sender.user.clone()), json.len())?;
        // What is put in is short: it stays an entry.
        let (entry, notification) = sent_by(json, &sender.user, new_id).map_err(invalid)?;
        let id = notification.id;
        match notification.to {
            Audience::User(to) => {
                let message = NewMessage {
                    id: &id,
                    from: &sender.user,
                    to: &to,
                    entry: entry.as_bytes(),
                    accepted_by: &self.replica,
                };
                let (status, is_repeat) = match self.broker.accept(&message).await? {
                    Accepted::Stored => (Status::None, false),
                    Accepted::Repeated(status) => (status, true),
                    Accepted::Conflict => {
                        let detail = "another message has this id already: give each one its own";
                        return Err(Refusal::new(StatusCode::CONFLICT, "the id is taken", detail));
                    }
                    Accepted::Full => return Err(list_full()),
                };
                metrics::message_accepted(is_repeat);
                Ok((id, status))
            }
            Audience::Topic(topic) if sender.may_read(&topic) => {
                if self.broker.waiting().await? >= WAITING_MAX_ENTRIES {
                    return Err(list_full());
                }
                self.broker.push(&[entry.into_bytes()]).await?;
                metrics::accepted();
                Ok((id, Status::None))
            }
            Audience::Topic(_) => {
                let detail = "a user sends to the topics that their token names in `topics`";
                Err(Refusal::new(StatusCode::FORBIDDEN, "the topic is not open to you", detail))
            }
            _ => {
                let detail =
                    "people send to a user, or to a topic; an application with a key may send to all";
                Err(Refusal::fields("nobody to send it to", vec![FieldError::new("to", detail)]))
            }
        }
    }

    /// Raises messages to a user, and says how many that changed. The rest were broadcasts, or further already.
    pub(crate) async fn advance(&self, user: &str, ids: &[String], status: Status) -> Result<(), Refusal> {
        let changed = self.broker.advance(user, ids, status, &self.replica).await?;
        metrics::message_advanced(status, changed);
        Ok(())
    }

    /// The message that a request names, for its sender, its addressee, and whoever has a key; and who asks.
    pub(crate) async fn message_for(&self, parts: &Parts, id: &str) -> Result<(Asker, Message), Refusal> {
        let nobody = || {
            let detail = "messages between people are kept for 7 days, for their sender and their addressee";
            Refusal::new(StatusCode::NOT_FOUND, "no such message", detail)
        };
        if !(1..=NAME_MAX_BYTES).contains(&id.len()) {
            return Err(nobody());
        }
        let asker = self.asker(parts).await?;
        if matches!(asker, Asker::Anybody) {
            return Err(who_asks());
        }
        let message = self.broker.message(id).await?.ok_or_else(nobody)?;
        match &asker {
            Asker::User(Identity { user, .. }) if *user != message.from && *user != message.to => {
                Err(nobody())
            }
            _ => Ok((asker, message)),
        }
    }
}

/// Notes in the ledger to which connections messages were written, without holding up those connections.
#[derive(Clone)]
pub(crate) struct Written {
    notes: mpsc::Sender<(Arc<str>, String)>,
}

impl Written {
    /// And what is to be run for it.
    pub(crate) fn new(broker: Broker, replica: Arc<str>) -> (Self, Noting) {
        let (notes, inbox) = mpsc::channel(WRITTEN_MAX);
        (Self { notes }, Noting { broker, replica, inbox })
    }

    pub(crate) fn note(&self, id: &Arc<str>, connection: &str) {
        if self.notes.try_send((Arc::clone(id), connection.to_owned())).is_err() {
            metrics::trace_dropped();
        }
    }
}

pub(crate) struct Noting {
    broker: Broker,
    replica: Arc<str>,
    inbox: mpsc::Receiver<(Arc<str>, String)>,
}

impl Noting {
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let (id, connection) = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                note = self.inbox.recv() => match note {
                    Some(note) => note,
                    None => return Ok(()),
                },
            };
            if self.broker.note_written(&id, &self.replica, &connection).await.is_err() {
                metrics::trace_dropped();
            }
        }
    }
}
