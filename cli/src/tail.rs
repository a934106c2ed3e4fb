use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use carillon_client::{Connection, Event};
use carillon_protocol::{GapReason, Heard, Phase, Resume, Welcome};
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

/// Reads until it has enough, is told to stop, or the server says that coming back is no use.
pub(crate) async fn tail(options: Options) -> anyhow::Result<()> {
    init_logs_at("warn");
    let stop = stop_on_signals();
    let ended = Tail::new(options).await?.run(&stop).await;
    // Whoever reads our output has had enough, as `head` has.
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
    /// Notifications to come before the end.
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
            Event::Refused(Refused::Passing(why)) => {
                // The replica may be what is wrong: let the front door choose another.
                self.headers().remove(header::COOKIE);
                self.closed(&format!("cannot connect to {} ({why})", self.url))?;
            }
            Event::Received { text, heard } => return self.receive(&text, heard),
            Event::Closed { code, reason } => {
                let named = code.map(|code| format!("closed with {}", code.0));
                let mut words = named.unwrap_or_else(|| "the connection was lost".to_owned());
                if !reason.is_empty() {
                    words = format!("{words}: {reason}");
                }
                self.closed(&words)?;
            }
            Event::Silent => self.waits("nothing was heard"),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn headers(&mut self) -> &mut HeaderMap {
        &mut self.connection.dial_mut().headers
    }

    fn receive(&mut self, text: &str, heard: Heard) -> anyhow::Result<ControlFlow<()>> {
        if !matches!(heard, Heard::Repeated) {
            self.printer.frame(text)?;
        }
        match heard {
            Heard::Notification(delivery) => {
                self.printer.notification(&delivery)?;
                self.connection.shown(&delivery);
                self.left = self.left.map(|left| left - 1);
                if self.left == Some(0) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Heard::Welcome(welcome) => self.welcome(&welcome),
            Heard::Gap { reason, audience } => {
                let why = match reason {
                    GapReason::Trimmed => "older ones are gone from history",
                    GapReason::Epoch => "history began anew, what was before is gone",
                    GapReason::Unreadable => "the server cannot read the cursor, and sends all that it has",
                };
                let whose = audience.map(|audience| format!(" of {audience}")).unwrap_or_default();
                self.printer.status(&format!("gap{whose}: {why}"));
            }
            Heard::Message(message) => self.printer.status(&message.to_json()),
            Heard::Error { code, detail, .. } => self.printer.status(&format!("{code}: {detail}")),
            Heard::Unreadable(error) => self.printer.status(&format!("a frame that cannot be read: {error}")),
            Heard::Repeated | Heard::Goodbye(_) | Heard::Nothing => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    fn welcome(&mut self, welcome: &Welcome) {
        let user = welcome.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default();
        let resumed = if welcome.resume == Resume::Complete { ", nothing was missed" } else { "" };
        self.printer.status(&format!("connected to {}{user}{resumed}", welcome.replica));
        // Renewed from time to time; a new one has its first.
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
            bail!("{} {}, and coming back is no use", self.url, plain(words));
        }
        self.waits(words);
        Ok(())
    }

    /// Says what went wrong and when it is tried again.
    fn waits(&self, words: &str) {
        if let Some(pause) = self.connection.pause() {
            self.printer.status(&format!("{words}; again in {:.1} s", pause.as_secs_f64()));
        }
    }
}

/// A header's value that no log shows.
fn secret(text: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).context("a line of visible ASCII is needed")?;
    value.set_sensitive(true);
    Ok(value)
}
