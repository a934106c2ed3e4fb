//! Messages between people: sent in the name of the signed-in user, acknowledged and read by the one whom
//! they are for, and accounted for.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::request::Parts;
use carillon_auth::token::{Identity, MaySend};
use carillon_broker::{Accepted, Broker, Message, MessageRef, NewMessage};
use carillon_protocol::limits::{NAME_MAX_BYTES, SEND_MAX_BYTES};
use carillon_protocol::{Audience, Cursor, FieldError, Status, sent_by};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::entry_refused::{invalid, list_full};
use crate::gate::Gate;
use crate::gate::caller::Caller;
use crate::gate::principal::{Principal, Right, authentication_required};
use crate::limits::clients::{Limits, Publisher};
use crate::metrics::{self, Limit};
use crate::refusal::Refusal;
use crate::request::query;
use crate::upkeep::memory::Memory;

/// Writings that wait to be recorded in the ledger; what comes beyond is not in any trace.
const WRITTEN_MAX: usize = 1_024;

/// Messages of users. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Messages {
    pub(crate) broker: Broker,
    pub(crate) replica: Arc<str>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) memory: Arc<Memory>,
    /// Whether users send where their token does not name whom they may send to.
    pub(crate) people_send: bool,
}

impl Messages {
    /// Sends a notification in the name of a user, to those to whom their token lets them: to read is another right.
    /// Returns its id, given by `new_id` where it has none, and how far it has come.
    pub(crate) async fn send(
        &self,
        sender: &Identity,
        json: &str,
        new_id: Option<String>,
    ) -> Result<(String, Status), Refusal> {
        if json.len() > SEND_MAX_BYTES {
            let detail = format!("a message between people has at most {SEND_MAX_BYTES} bytes");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload too large", detail));
        }
        self.limits.count_publish(&Publisher::User(sender.user.clone()), json.len())?;
        // What is put in is short: it stays an entry.
        let (entry, notification) = sent_by(json, &sender.user, new_id).map_err(invalid)?;
        let (id, to) = (notification.id, notification.to);
        match &to {
            Audience::User(_) | Audience::Topic(_) if sender.may_send(&to, self.people_send) => {}
            Audience::User(_) | Audience::Topic(_) => return Err(may_not_send(sender)),
            _ => {
                let detail = "users send to a user, or to a topic; an application with a key may send to all";
                return Err(Refusal::fields("invalid recipient", vec![FieldError::new("to", detail)]));
            }
        }
        self.memory.check()?;
        let (id_ref, entry) = (id.as_str(), entry.as_bytes());
        let message =
            NewMessage { id: id_ref, from: &sender.user, to: &to, entry, accepted_by: &self.replica };
        let (status, is_repeat) = match self.broker.send(&message).await? {
            Accepted::Stored => (Status::None, false),
            Accepted::Repeated(status) => (status, true),
            Accepted::Conflict => {
                let detail = "another message of yours has this id already: give each one its own";
                return Err(Refusal::new(StatusCode::CONFLICT, "id already used", detail));
            }
            Accepted::Full => return Err(list_full()),
            Accepted::Quota { retry_ms } => {
                metrics::limit_reached(Limit::StoredBytes);
                let detail = "a user may have so many bytes stored in a day: see SEND_BYTES_PER_DAY";
                return Err(Refusal::too_many("daily limit reached", detail, retry_ms.div_ceil(1_000)));
            }
        };
        match to {
            Audience::User(_) => metrics::message_accepted(is_repeat),
            _ => metrics::accepted(),
        }
        Ok((id, status))
    }

    /// Raises messages to a user, and counts how many that changed. The rest had come as far already.
    pub(crate) async fn advance(
        &self,
        user: &str,
        messages: &[MessageRef],
        status: Status,
    ) -> Result<(), Refusal> {
        let changed = self.broker.advance(user, messages, status, &self.replica).await?;
        metrics::message_advanced(status, changed);
        Ok(())
    }

    /// Records that a user has read everything up to a cursor.
    pub(crate) async fn mark_read(&self, user: &str, cursor: &Cursor) -> Result<(), Refusal> {
        self.broker.mark_read(user, cursor, &self.replica).await?;
        Ok(())
    }

    /// Up to where the signed-in user has read.
    pub(crate) async fn read_position(&self, caller: &Caller) -> Result<Option<String>, Refusal> {
        match caller.user() {
            Some(user) => Ok(self.broker.read_position(user).await?.map(|cursor| cursor.to_string())),
            None => Ok(None),
        }
    }

    /// The message that a request names, for its sender, its addressee, and whoever has a key; and who asks. Ids are their
    /// sender's own: without `?from=` it is one that the user who asks has sent.
    pub(crate) async fn find(
        &self,
        gate: &Gate,
        parts: &Parts,
        id: &str,
    ) -> Result<(Principal, Message), Refusal> {
        let nobody = || {
            let detail = "messages between users are kept for 7 days, for their sender and their addressee; name the sender of one that you received with ?from=";
            Refusal::new(StatusCode::NOT_FOUND, "message not found", detail)
        };
        let is_name = |name: &str| (1..=NAME_MAX_BYTES).contains(&name.len());
        if !is_name(id) {
            return Err(nobody());
        }
        let principal = gate.principal(parts, Right::Read).await?;
        let from = match (query(parts, "from"), &principal) {
            (_, Principal::Anonymous) => return Err(authentication_required()),
            (Some(from), _) => from,
            (None, Principal::User(one)) => one.user.clone(),
            (None, Principal::Application(_)) => {
                let fault = FieldError::new("from", "the user who sent it: ids are their sender's own");
                return Err(Refusal::fields("sender required", vec![fault]));
            }
        };
        if !is_name(&from) {
            return Err(nobody());
        }
        let named = MessageRef { from, id: id.to_owned() };
        let message = self.broker.message(&named).await?.ok_or_else(nobody)?;
        match &principal {
            Principal::User(Identity { user, .. }) if *user != message.from && *user != message.to => {
                Err(nobody())
            }
            _ => Ok((principal, message)),
        }
    }
}

/// Says how somebody comes to send, without a word of whom they may send to.
fn may_not_send(sender: &Identity) -> Refusal {
    let detail = match sender.send {
        MaySend::To(_) => {
            "your token's claim `send` does not name it: whoever issues the token adds user:NAME, user:* or topic:NAME"
        }
        MaySend::Unsaid => {
            "your token has no claim `send`: whoever issues it adds user:NAME, user:* or topic:NAME, or the service starts with PEOPLE_SEND=1, which opens all users, and the topics of a token"
        }
    };
    Refusal::new(StatusCode::FORBIDDEN, "recipient not allowed", detail)
}

/// Records in the ledger to which connections messages were written, without holding up those connections.
#[derive(Clone)]
pub(crate) struct Written {
    records: mpsc::Sender<(Arc<MessageRef>, String)>,
}

impl Written {
    /// And what is to be run for it.
    pub(crate) fn new(broker: Broker, replica: Arc<str>) -> (Self, Recorder) {
        let (records, inbox) = mpsc::channel(WRITTEN_MAX);
        (Self { records }, Recorder { broker, replica, inbox })
    }

    pub(crate) fn record(&self, message: &Arc<MessageRef>, connection: &str) {
        if self.records.try_send((Arc::clone(message), connection.to_owned())).is_err() {
            metrics::trace_dropped();
        }
    }
}

pub(crate) struct Recorder {
    broker: Broker,
    replica: Arc<str>,
    inbox: mpsc::Receiver<(Arc<MessageRef>, String)>,
}

impl Recorder {
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let (message, connection) = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                record = self.inbox.recv() => match record {
                    Some(record) => record,
                    None => return Ok(()),
                },
            };
            if self.broker.record_written(&message, &self.replica, &connection).await.is_err() {
                metrics::trace_dropped();
            }
        }
    }
}
