use std::io::Write;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use carillon_protocol::http::Published;
use carillon_protocol::{Audience, Backoff, FieldError, Notification, Problem, Severity};
use carillon_service::outbound::{Answer, Unanswered};
use carillon_service::{init_logs_at, report};
use clap::Args;

use crate::address::Address;
use crate::http::{Http, retry_after_ms};
use crate::plain::plain;
use crate::tls;

/// Maximum attempts to post a notification, all with the same id.
const TRIES_MAX: u32 = 4;
/// The longest first pause before another attempt.
const PAUSE_BASE_MS: u64 = 500;
/// The longest pause, even if the server requests a longer one.
const PAUSE_CAP_MS: u64 = 5_000;

#[derive(Args)]
pub(crate) struct Options {
    /// The text of the notification
    text: String,
    /// Who receives it: everyone, user:ID, session:ID, topic:NAME or connection:ID
    #[arg(long, default_value_t)]
    to: Audience,
    /// Severity: info, success, warning or error
    #[arg(long, default_value_t)]
    severity: Severity,
    /// Title above the text
    #[arg(long, default_value = "", hide_default_value = true)]
    title: String,
    /// Id of the notification: one that is sent twice with the same id is shown once [default: a new UUIDv7]
    #[arg(long)]
    id: Option<String>,
    /// URL of a replica, or of a front door before replicas
    #[arg(long, env = "CARILLON_URL", default_value = Address::DEFAULT)]
    url: Address,
    /// API key with the scope publish
    #[arg(long, env, hide_env_values = true)]
    api_key: Option<String>,
    /// Token (JWT) of a user, in whose name it is sent to a user or a topic. It is used before the key
    #[arg(long, env = "CARILLON_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Posts one notification and prints its id.
pub(crate) async fn send(options: Options) -> anyhow::Result<()> {
    init_logs_at("warn");
    let json = options.notification()?;
    let given = [&options.token, &options.api_key];
    let bearer = given.into_iter().flatten().map(String::as_str).find(|bearer| !bearer.is_empty());
    let http = Http::new(tls::trust(&options.url)?, bearer).context("the key or token")?;
    let id = post(&http, &options.url, &json).await?;
    writeln!(std::io::stdout(), "{}", plain(&id)).context("cannot print the id")
}

impl Options {
    /// Returns the notification as JSON, or the error with which the server would refuse it.
    fn notification(&self) -> anyhow::Result<String> {
        let notification = Notification {
            id: self.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
            title: self.title.clone(),
            severity: self.severity,
            to: self.to.clone(),
            ..Notification::text(self.text.clone())
        };
        // An empty id would be omitted from the JSON, and replaced by a generated one.
        if notification.id.is_empty() {
            bail!("id: empty: omit it or use 1 to 128 bytes");
        }
        let json = serde_json::to_string(&notification).context("cannot write the notification")?;
        match Notification::check(&json) {
            Ok(_) => Ok(json),
            Err(faults) => Err(anyhow!("{}", listed(&faults))),
        }
    }
}

/// Why a post brought no id.
enum Fault {
    /// Another attempt would fail too.
    Final(anyhow::Error),
    /// Another attempt may succeed, after the pause in milliseconds that the server requests.
    Passing(anyhow::Error, Option<u64>),
}

/// Posts until the notification is accepted, refused, or has failed too often. The id makes repeats harmless.
async fn post(http: &Http, url: &Address, json: &str) -> anyhow::Result<String> {
    let mut backoff = Backoff::new(PAUSE_BASE_MS, PAUSE_CAP_MS);
    loop {
        let (error, asked_ms) = match try_post(http, url, json).await {
            Ok(id) => return Ok(id),
            Err(Fault::Final(error)) => return Err(error),
            Err(Fault::Passing(error, asked_ms)) => (error, asked_ms.unwrap_or_default()),
        };
        let pause_ms = backoff.next_ms(fastrand::f64()).max(asked_ms).min(PAUSE_CAP_MS);
        if backoff.attempt() == TRIES_MAX {
            return Err(error.context(format!("given up after {TRIES_MAX} tries")));
        }
        report(&format!("{error}; again in {pause_ms} ms"));
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

async fn try_post(http: &Http, url: &Address, json: &str) -> Result<String, Fault> {
    let answer = http.post(&url.notifications(), json).await.map_err(|unanswered| match unanswered {
        // A refused connection is final: a wrong address is more likely than a restart.
        Unanswered::Unconnected(cause) => Fault::Final(anyhow!(
            "cannot connect to {url} ({cause}): start `cargo demo`, or name the address of Carillon with --url or CARILLON_URL"
        )),
        Unanswered::Lost(cause) => Fault::Passing(anyhow!("no response from {url}: {cause}"), None),
    })?;
    if answer.status.is_success()
        && let Some(id) = accepted(&answer)
    {
        return Ok(id);
    }
    let error = refused(url, &answer);
    // A front door answers 502 and 504 for a replica that has just ended.
    let passes = matches!(answer.status.as_u16(), 429 | 502..=504);
    Err(if passes { Fault::Passing(error, retry_after_ms(&answer.headers)) } else { Fault::Final(error) })
}

fn accepted(answer: &Answer) -> Option<String> {
    Some(serde_json::from_slice::<Published>(&answer.body).ok()?.id)
}

fn refused(url: &Address, answer: &Answer) -> anyhow::Error {
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) => anyhow!("{}", plain(&problem.to_string())),
        Err(_) => anyhow!("{url} answers {}: is that a Carillon?", answer.status),
    }
}

fn listed(faults: &[FieldError]) -> String {
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    faults.join("; ")
}
