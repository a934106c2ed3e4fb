//! Messages of readers to the application behind the service: stored first, and then posted to it by any replica with a free
//! slot.

mod sender;

use std::sync::Arc;

use anyhow::{anyhow, bail};
use axum::http::Uri;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_broker::limits::{OUTBOX_ANONYMOUS_MAX, OUTBOX_LINE_MAX, OUTBOX_MAX, OUTBOX_USER_MAX};
use carillon_broker::{Broker, OutboxError, Speaker};
use carillon_protocol::http::ApplicationMessage;
use carillon_protocol::limits::NAME_MAX_BYTES;
use carillon_protocol::{Audience, check_json, format_timestamp};
use carillon_service::outbound::address;
use carillon_service::{Tasks, filled};
use clap::Args;
use ring::digest;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::gate::caller::Caller;
use crate::gate::signed::Signing;
use crate::limits::clients::Limits;
use crate::metrics;
use crate::refusal::Refusal;
use crate::upkeep::memory::Memory;
use sender::Sender;

/// Maximum bytes of a message to the application, text and data together. Ten thousand messages may wait.
const MESSAGE_MAX_BYTES: usize = 16 * 1024;

/// The address of the application. An empty option counts as absent.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Applications that sign")]
pub struct UpstreamOptions {
    /// URL that every `message` of a reader is posted to, signed: http:// or https://. It needs --webhook-secret or
    /// --apiauth-secret
    #[arg(long, env, hide_env_values = true)]
    pub upstream_url: Option<String>,
}

/// The application behind the service.
#[derive(Clone, Debug)]
pub struct Upstream {
    url: Uri,
    signing: Signing,
}

impl Upstream {
    /// Parses the option; `None` without an application.
    ///
    /// # Errors
    /// When the URL is invalid, or no secret is configured to sign with.
    pub fn new(options: &UpstreamOptions, signing: &Signing) -> anyhow::Result<Option<Self>> {
        let Some(text) = options.upstream_url.as_deref().and_then(filled) else { return Ok(None) };
        let url = address(text).map_err(|fault| anyhow!("UPSTREAM_URL: {fault}"))?;
        if !signing.is_configured() {
            bail!("UPSTREAM_URL needs a WEBHOOK_SECRET, or an APIAUTH_SECRET, to sign with");
        }
        Ok(Some(Self { url, signing: signing.clone() }))
    }

    /// Starts the sender of stored messages, and returns what wakes it.
    pub(crate) fn start(self, tasks: &Tasks, broker: &Broker, replica: &Arc<str>) -> Arc<Notify> {
        let wake = Arc::<Notify>::default();
        let sender = Sender::new(self, broker.clone(), Arc::clone(replica), Arc::clone(&wake));
        tasks.spawn("upstream", sender.run(tasks.stop().clone()));
        wake
    }
}

/// A message of a reader to the application.
pub(crate) struct UpstreamMessage<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) data: Option<&'a RawValue>,
}

/// The code and the detail of the error with which a message is refused.
pub(crate) type UpstreamError = (&'static str, String);

/// The messages that wait for the application. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    pub(crate) broker: Broker,
    /// Notified when a message was stored; `None` where there is no application.
    pub(crate) stored: Option<Arc<Notify>>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) memory: Arc<Memory>,
    /// Whether readers who are not signed in may send to the application.
    pub(crate) allow_anonymous: bool,
    pub(crate) clock: Clock,
}

impl Outbox {
    /// Stores a message for the application. The messages of one session, or else one user, or else one connection arrive in
    /// order.
    pub(crate) async fn send(
        &self,
        caller: &Caller,
        connection: &str,
        message: UpstreamMessage<'_>,
    ) -> Result<(), UpstreamError> {
        let Some(wake) = &self.stored else {
            return Err(("no_upstream", "this service has no application".to_owned()));
        };
        let speaker = caller.user().map_or(Speaker::Anonymous, Speaker::User);
        if speaker == Speaker::Anonymous && !self.allow_anonymous {
            return Err(("not_signed_in", ANONYMOUS_REFUSED.to_owned()));
        }
        let bytes = check(&message).map_err(|detail| ("invalid", detail))?;
        self.limits
            .count_publish_by(caller.user(), caller.network, bytes)
            .map_err(|refusal| ("rate_limited", refusal.to_line()))?;
        self.memory.check().map_err(|refusal| ("unavailable", refusal.to_line()))?;
        let (session, user) = (caller.own_session(), caller.own_user());
        let name =
            |audience: &Option<Audience>| audience.as_ref().and_then(Audience::name).map(str::to_owned);
        let (session_id, user_id) = (name(&session), name(&user));
        let line = session.or(user).unwrap_or_else(|| Audience::Connection(connection.to_owned()));
        let webhook_id = webhook_id(&line, message.id);
        let body = ApplicationMessage {
            id: message.id.unwrap_or(&webhook_id).to_owned(),
            session: session_id,
            user: user_id,
            connection: connection.to_owned(),
            message: message.message.map(str::to_owned),
            data: message.data.map(ToOwned::to_owned),
            at: format_timestamp((self.clock)()),
        };
        let body = serde_json::to_vec(&body).map_err(|error| ("invalid", error.to_string()))?;
        match self.broker.send_out(&line, &webhook_id, &body, speaker).await {
            Ok(()) => {
                metrics::upstream_accepted();
                wake.notify_one();
                Ok(())
            }
            Err(OutboxError::Full) => Err((
                "upstream_full",
                format!("{OUTBOX_MAX} messages wait for the application; try again later"),
            )),
            Err(OutboxError::AnonymousFull) => {
                let detail = format!(
                    "{OUTBOX_ANONYMOUS_MAX} messages of people who are not signed in wait for the application; try again later"
                );
                Err(("upstream_full", detail))
            }
            Err(OutboxError::UserFull) => {
                let detail = format!(
                    "{OUTBOX_USER_MAX} messages of all your sessions wait for the application; try again later"
                );
                Err(("upstream_full", detail))
            }
            Err(OutboxError::LineFull) => {
                let detail =
                    format!("{OUTBOX_LINE_MAX} of your messages wait for the application; try again later");
                Err(("upstream_full", detail))
            }
            Err(OutboxError::Broker(error)) => Err(("unavailable", Refusal::from(error).to_line())),
        }
    }
}

/// The detail of a refusal of a reader who is not signed in. A session does not count as a name, since any client can begin
/// one.
const ANONYMOUS_REFUSED: &str = "connect with a token; without one, a service accepts messages with --allow-anonymous-messages (ALLOW_ANONYMOUS_MESSAGES=1)";

/// Validates a message and returns its bytes.
fn check(message: &UpstreamMessage<'_>) -> Result<usize, String> {
    if message.id.is_some_and(|id| !(1..=NAME_MAX_BYTES).contains(&id.len())) {
        return Err(format!("id: 1 to {NAME_MAX_BYTES} bytes"));
    }
    let bytes = message.message.map_or(0, str::len) + message.data.map_or(0, |data| data.get().len());
    match bytes {
        0 => Err("message or data: at least one is needed".to_owned()),
        1..=MESSAGE_MAX_BYTES => match message.data.map(|data| check_json(data.get())) {
            Some(Err(fault)) => Err(format!("data: must be JSON that all programs parse alike: {fault}")),
            _ => Ok(bytes),
        },
        _ => Err(format!("message and data: {bytes} bytes, at most {MESSAGE_MAX_BYTES} together")),
    }
}

/// Returns the webhook id of a message. Ids belong to their sender: the same id of two senders means two messages, and a
/// repeat by the same sender is the same message.
fn webhook_id(line: &Audience, id: Option<&str>) -> String {
    let Some(id) = id else { return format!("msg_{}", uuid::Uuid::now_v7().simple()) };
    // A name may contain any byte, so its length comes before it.
    let line = line.to_string();
    let text = format!("{} {line}{id}", line.len());
    format!("msg_{}", URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::signed::SigningOptions;

    #[test]
    fn an_application_has_an_address_and_a_secret() {
        let new = |url: &str, secret: &str| {
            let secret = Some(secret.into());
            let signing = SigningOptions { webhook_secret: secret, apiauth_secret: None };
            let options = UpstreamOptions { upstream_url: Some(url.to_owned()) };
            Upstream::new(&options, &Signing::new(&signing).unwrap())
        };
        let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        assert!(new("https://app.example/incoming", secret).unwrap().is_some());
        assert!(new(" ", "").unwrap().is_none());
        let fault = new("app.example", secret).unwrap_err().to_string();
        assert!(fault.starts_with("UPSTREAM_URL: "), "{fault}");
        let fault = new("http://app.example", "").unwrap_err().to_string();
        assert!(fault.contains("WEBHOOK_SECRET"), "{fault}");
    }

    #[test]
    fn an_id_is_its_sender_s_own() {
        let line = |name: &str| Audience::Session(name.to_owned());
        assert_eq!(webhook_id(&line("a"), Some("1")), webhook_id(&line("a"), Some("1")));
        let ids = [(line("a"), "1"), (line("b"), "1"), (line("a"), "2"), (line("a1"), ""), (line("a"), "11")];
        let ids: std::collections::HashSet<_> =
            ids.iter().map(|(line, id)| webhook_id(line, Some(id))).collect();
        assert_eq!(ids.len(), 5);
        assert_ne!(webhook_id(&line("a"), None), webhook_id(&line("a"), None));
        assert!(ids.iter().all(|id| id.len() <= NAME_MAX_BYTES && !id.contains('.')));
    }
}
