use std::future::pending;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use carillon_protocol::limits::ACK_AFTER_MS;
use carillon_protocol::{Acks, Client, CloseCode, GapReason, Heard, Phase, Resume, Step, Welcome};
use carillon_service::{init_logs_at, stop_on_signals};
use clap::Args;
use rustls::ClientConfig;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::Address;
use crate::line::{Happened, Line};
use crate::plain::plain;
use crate::printer::Printer;
use crate::socket::{Frame, Refused, Socket};
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
    let ended = Tail::new(options)?.run(&stop).await;
    // Whoever reads our output has had enough, as `head` has.
    let enough = |error: &anyhow::Error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    ended.or_else(|error| if enough(&error) { Ok(()) } else { Err(error) })
}

/// The header that names a session.
const SESSION: HeaderName = HeaderName::from_static("carillon-session");

/// A reader in a terminal: the client core, and the socket that it asks for.
struct Tail {
    url: Address,
    /// Who reads; and the cookie that leads back to the replica of the last connection.
    headers: HeaderMap,
    /// Whether a user is signed in, for whom it says what arrived.
    acknowledges: bool,
    acks: Acks,
    trust: Arc<ClientConfig>,
    client: Client,
    line: Line,
    printer: Printer,
    /// Notifications to come before the end.
    left: Option<u64>,
    started: Instant,
}

impl Tail {
    fn new(options: Options) -> anyhow::Result<Self> {
        let Options { url, since, topic, token, session, json, count } = options;
        let mut headers = HeaderMap::new();
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            let value = secret(&format!("Bearer {token}")).context("--token or CARILLON_TOKEN")?;
            headers.insert(header::AUTHORIZATION, value);
        }
        if let Some(session) = session.filter(|session| !session.is_empty()) {
            headers.insert(SESSION, secret(&session).context("--session or CARILLON_SESSION")?);
        }
        let mut client = Client::new(since.filter(|since| !since.is_empty()));
        for topic in topic {
            // Nothing is sent: the connection that is about to be opened names them.
            drop(client.subscribe(&topic));
        }
        Ok(Self {
            headers,
            acknowledges: false,
            acks: Acks::default(),
            trust: Arc::new(tls::trust(&url)?),
            url,
            client,
            line: Line::None,
            printer: Printer { json },
            left: count,
            started: Instant::now(),
        })
    }

    async fn run(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        loop {
            let until_ms = match self.client.step(self.now_ms(), fastrand::f64()) {
                Step::Open { since, topics } => {
                    self.open(since.as_deref(), &topics);
                    continue;
                }
                Step::Drop => {
                    self.line = Line::None;
                    self.waits("nothing was heard");
                    continue;
                }
                Step::Wait { until_ms } => until_ms,
            };
            let until_ms = [until_ms, self.acks.wake_at_ms()].into_iter().flatten().min();
            let wake_at = until_ms.map(|ms| self.started + Duration::from_millis(ms));
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => ControlFlow::Break(()),
                happened = self.line.next() => self.tell(happened).await?,
                () = sleep_until(wake_at) => ControlFlow::Continue(()),
            };
            // Before the end, what waits for more of its kind goes out too.
            let now_ms = self.now_ms() + if next.is_break() { ACK_AFTER_MS } else { 0 };
            self.acknowledge(now_ms).await;
            if next.is_break() {
                self.line.close().await;
                if let Some(cursor) = self.client.cursor() {
                    self.printer.status(&format!("go on with --since {cursor}"));
                }
                return Ok(());
            }
        }
    }

    /// Sends what is due by now, on a connection that is live.
    async fn acknowledge(&mut self, now_ms: u64) {
        if !matches!(self.client.phase(), Phase::Live { .. }) {
            return;
        }
        for frame in self.acks.frames(now_ms) {
            self.line.say(frame.to_json()).await;
        }
    }

    fn open(&mut self, since: Option<&str>, topics: &[String]) {
        let url = self.url.socket(since, topics);
        let opening = Socket::open(url, self.headers.clone(), Arc::clone(&self.trust));
        self.line = Line::Opening(Box::pin(opening));
    }

    async fn tell(&mut self, happened: Happened) -> anyhow::Result<ControlFlow<()>> {
        match happened {
            Happened::Opened(socket) => {
                if let Some(cookie) = &socket.cookie {
                    self.headers.insert(header::COOKIE, cookie.clone());
                }
                self.line = Line::Open(socket);
            }
            Happened::Refused(Refused::Final(why)) => bail!("{} refuses: {}", self.url, plain(&why)),
            Happened::Refused(Refused::Passing(why)) => {
                // The replica may be what is wrong: let the front door choose another.
                self.headers.remove(header::COOKIE);
                self.closed(None, &format!("cannot connect to {} ({why})", self.url))?;
            }
            Happened::Heard(Frame::Text(text)) => return self.hear(&text).await,
            Happened::Heard(Frame::Other) => self.client.alive(self.now_ms()),
            Happened::Heard(Frame::Closed(code, reason)) => {
                let named = code.map(|code| format!("closed with {}", code.0));
                let mut words = named.unwrap_or_else(|| "the connection was lost".to_owned());
                if !reason.is_empty() {
                    words = format!("{words}: {reason}");
                }
                self.closed(code, &words)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn hear(&mut self, text: &str) -> anyhow::Result<ControlFlow<()>> {
        let heard = self.client.text(self.now_ms(), text);
        if !matches!(heard, Heard::Repeated) {
            self.printer.frame(text)?;
        }
        match heard {
            Heard::Notification(delivery) => {
                self.printer.notification(&delivery)?;
                if let Some(message) = delivery.acknowledgement().filter(|_| self.acknowledges) {
                    self.acks.shown(self.now_ms(), message);
                }
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
        self.acknowledges = welcome.user.is_some();
        self.acks.welcomed(self.now_ms());
        // Renewed from time to time; a new one has its first.
        let Some(session) = welcome.session.as_deref().and_then(|session| secret(session).ok()) else {
            return;
        };
        if self.headers.get(SESSION) != Some(&session) {
            self.printer.status(&format!("go on with --session {}", session.to_str().unwrap_or_default()));
            self.headers.insert(SESSION, session);
        }
    }

    fn closed(&mut self, code: Option<CloseCode>, words: &str) -> anyhow::Result<()> {
        self.line = Line::None;
        self.client.closed(self.now_ms(), code, fastrand::f64());
        if let Phase::Stopped { .. } = self.client.phase() {
            bail!("{} {}, and coming back is no use", self.url, plain(words));
        }
        self.waits(words);
        Ok(())
    }

    /// Says what went wrong and when it is tried again.
    fn waits(&self, words: &str) {
        if let Phase::Waiting { until_ms } = self.client.phase() {
            let pause = Duration::from_millis(until_ms.saturating_sub(self.now_ms()));
            self.printer.status(&format!("{words}; again in {:.1} s", pause.as_secs_f64()));
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A header's value that no log shows.
fn secret(text: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).context("a line of visible ASCII is needed")?;
    value.set_sensitive(true);
    Ok(value)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
