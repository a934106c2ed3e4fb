use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use carillon_client::{Connection, Event};
use carillon_protocol::{ClientEvent, GapReason, Phase, Resume, Welcome};
use carillon_service::{init_logs_at, stop_on_signals};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::plain::plain;
use crate::printer::Printer;
use crate::socket::{Dialer, Refused};
use crate::tls;

#[derive(Args)]
pub(crate) struct Options {
    /// URL of a replica, or of a front door before replicas
    #[arg(long, env = "CARILLON_URL", default_value = Address::DEFAULT)]
    url: Address,
    /// Cursor after which to begin [default: now]
    #[arg(long)]
    since: Option<String>,
    /// Topic to read too. It may be given several times
    #[arg(long)]
    topic: Vec<String>,
    /// Token (JWT) of a user: reads what is for them, and acknowledges it
    #[arg(long, env = "CARILLON_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Sealed token of a session, or `new` for a new one: reads what is for the session
    #[arg(long, env = "CARILLON_SESSION", hide_env_values = true)]
    session: Option<String>,
    /// Prints every frame as it was received, one on each line
    #[arg(long)]
    json: bool,
    /// Number of notifications after which to end [default: never]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Reads until it has the requested number, is stopped, or the server closes for good.
pub(crate) async fn tail(options: Options) -> anyhow::Result<()> {
    init_logs_at("warn");
    let stop = stop_on_signals();
    let ended = Tail::new(options).await?.run(&stop).await;
    // The reader of our output has closed it, as `head` does.
    let enough = |error: &anyhow::Error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    ended.or_else(|error| if enough(&error) { Ok(()) } else { Err(error) })
}

/// The header that names a session.
const SESSION: HeaderName = HeaderName::from_static("carillon-session");

/// A reader in a terminal.
struct Tail {
    url: Address,
    connection: Connection<Dialer>,
    printer: Printer,
    /// The number of notifications before the end.
    left: Option<u64>,
}

impl Tail {
    async fn new(options: Options) -> anyhow::Result<Self> {
        let Options { url, since, topic, token, session, json, count } = options;
        let mut headers = HeaderMap::new();
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            let value = secret(&format!("Bearer {token}")).context("--token or CARILLON_TOKEN")?;
            headers.insert(header::AUTHORIZATION, value);
        }
        if let Some(session) = session.filter(|session| !session.is_empty()) {
            headers.insert(SESSION, secret(&session).context("--session or CARILLON_SESSION")?);
        }
        let dialer = Dialer { trust: Arc::new(tls::trust(&url)?), url: url.clone(), headers };
        let mut connection = Connection::new(dialer, since.filter(|since| !since.is_empty()));
        for topic in topic {
            connection.subscribe(&topic).await;
        }
        Ok(Self { url, connection, printer: Printer { json }, left: count })
    }

    async fn run(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => ControlFlow::Break(()),
                event = self.connection.next() => self.handle(event)?,
            };
            if next.is_break() {
                if let Some(cursor) = self.connection.close().await {
                    self.printer.status(&format!("go on with --since {cursor}"));
                }
                return Ok(());
            }
        }
    }

    fn handle(&mut self, event: Event<Refused>) -> anyhow::Result<ControlFlow<()>> {
        match event {
            Event::Connecting | Event::Alive => {}
            Event::Opened => {
                let cookie = self.connection.socket().and_then(|socket| socket.cookie.clone());
                if let Some(cookie) = cookie {
                    self.headers().insert(header::COOKIE, cookie);
                }
            }
            Event::Refused(Refused::Final(why)) => bail!("{} refuses: {}", self.url, plain(&why)),
            Event::Refused(Refused::Temporary(why)) => {
                // The replica may be the cause: the front door has to choose another.
                self.headers().remove(header::COOKIE);
                self.closed(&format!("cannot connect to {} ({why})", self.url))?;
            }
            Event::Received { text, event } => return self.receive(&text, event),
            Event::Closed { code, reason } => {
                let named = code.map(|code| format!("closed with {}", code.0));
                let mut words = named.unwrap_or_else(|| "the connection was lost".to_owned());
                if !reason.is_empty() {
                    words = format!("{words}: {reason}");
                }
                self.closed(&words)?;
            }
            Event::Silent => self.waits("the server was silent"),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn headers(&mut self) -> &mut HeaderMap {
        &mut self.connection.dial_mut().headers
    }

    fn receive(&mut self, text: &str, event: ClientEvent) -> anyhow::Result<ControlFlow<()>> {
        if !matches!(event, ClientEvent::Repeated) {
            self.printer.frame(text)?;
        }
        match event {
            ClientEvent::Notification(delivery) => {
                self.printer.notification(&delivery)?;
                self.connection.shown(&delivery);
                self.left = self.left.map(|left| left - 1);
                if self.left == Some(0) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            ClientEvent::Welcome(welcome) => self.welcome(&welcome),
            ClientEvent::Gap { reason, audience } => {
                let why = match reason {
                    GapReason::Trimmed => "older ones are gone from history",
                    GapReason::Epoch => "history has a new epoch, older ones are gone",
                    GapReason::Unreadable => "the server cannot read the cursor, and sends all of history",
                };
                let whose = audience.map(|audience| format!(" of {audience}")).unwrap_or_default();
                self.printer.status(&format!("gap{whose}: {why}"));
            }
            ClientEvent::Message(message) => self.printer.status(&message.to_json()),
            ClientEvent::Error { code, detail, .. } => self.printer.status(&format!("{code}: {detail}")),
            ClientEvent::Unreadable(error) => self.printer.status(&format!("unreadable frame: {error}")),
            ClientEvent::Repeated | ClientEvent::Goodbye(_) | ClientEvent::Nothing => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn welcome(&mut self, welcome: &Welcome) {
        let user = welcome.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        let resumed = if welcome.resume == Resume::Complete { ", nothing was missed" } else { "" };
        self.printer.status(&format!("connected to {}{user}{resumed}", welcome.replica));
        // The token is renewed from time to time; a new session gets its first.
        let Some(session) = welcome.session.as_deref().and_then(|session| secret(session).ok()) else {
            return;
        };
        if self.headers().get(SESSION) != Some(&session) {
            self.printer.status(&format!("go on with --session {}", session.to_str().unwrap_or_default()));
            self.headers().insert(SESSION, session);
        }
    }

    fn closed(&self, words: &str) -> anyhow::Result<()> {
        if let Phase::Stopped { .. } = self.connection.phase() {
            bail!("{} {}, and does not accept a reconnect", self.url, plain(words));
        }
        self.waits(words);
        Ok(())
    }

    /// Reports an error and the time of the next attempt.
    fn waits(&self, words: &str) {
        if let Some(pause) = self.connection.pause() {
            self.printer.status(&format!("{words}; again in {:.1} s", pause.as_secs_f64()));
        }
    }
}

/// Returns a header value that is not logged.
fn secret(text: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).context("a line of visible ASCII is needed")?;
    value.set_sensitive(true);
    Ok(value)
}
