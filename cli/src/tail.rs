use std::future::pending;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use axum::http::HeaderValue;
use carillon_protocol::{Client, CloseCode, GapReason, Heard, Phase, Resume, Step};
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
    /// Where Carillon answers
    #[arg(long, env = "CARILLON_URL", default_value = Address::DEFAULT)]
    url: Address,
    /// Begins after this cursor instead of now
    #[arg(long)]
    since: Option<String>,
    /// Prints every frame as it came, one a line
    #[arg(long)]
    json: bool,
    /// Ends after so many notifications [default: never]
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

/// A reader in a terminal: the client core, and the socket that it asks for.
struct Tail {
    url: Address,
    trust: Arc<ClientConfig>,
    client: Client,
    line: Line,
    /// Leads back to the replica of the last connection.
    cookie: Option<HeaderValue>,
    printer: Printer,
    /// Notifications to come before the end.
    left: Option<u64>,
    started: Instant,
}

impl Tail {
    fn new(options: Options) -> anyhow::Result<Self> {
        let Options { url, since, json, count } = options;
        Ok(Self {
            trust: Arc::new(tls::trust(&url)?),
            url,
            client: Client::new(since.filter(|since| !since.is_empty())),
            line: Line::None,
            cookie: None,
            printer: Printer { json },
            left: count,
            started: Instant::now(),
        })
    }

    async fn run(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        loop {
            let until_ms = match self.client.step(self.now_ms(), fastrand::f64()) {
                Step::Open { since } => {
                    self.open(since.as_deref());
                    continue;
                }
                Step::Drop => {
                    self.line = Line::None;
                    self.waits("nothing was heard");
                    continue;
                }
                Step::Wait { until_ms } => until_ms,
            };
            let wake_at = until_ms.map(|ms| self.started + Duration::from_millis(ms));
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => ControlFlow::Break(()),
                happened = self.line.next() => self.tell(happened)?,
                () = sleep_until(wake_at) => ControlFlow::Continue(()),
            };
            if next.is_break() {
                self.line.close().await;
                if let Some(cursor) = self.client.cursor() {
                    self.printer.status(&format!("go on with --since {cursor}"));
                }
                return Ok(());
            }
        }
    }

    fn open(&mut self, since: Option<&str>) {
        let opening = Socket::open(self.url.socket(since), self.cookie.clone(), Arc::clone(&self.trust));
        self.line = Line::Opening(Box::pin(opening));
    }

    fn tell(&mut self, happened: Happened) -> anyhow::Result<ControlFlow<()>> {
        match happened {
            Happened::Opened(socket) => {
                if socket.cookie.is_some() {
                    self.cookie.clone_from(&socket.cookie);
                }
                self.line = Line::Open(socket);
            }
            Happened::Refused(Refused::Final(why)) => bail!("{} refuses: {}", self.url, plain(&why)),
            Happened::Refused(Refused::Passing(why)) => {
                // The replica may be what is wrong: let the front door choose another.
                self.cookie = None;
                self.closed(None, &format!("cannot connect to {} ({why})", self.url))?;
            }
            Happened::Heard(Frame::Text(text)) => return self.hear(&text),
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

    fn hear(&mut self, text: &str) -> anyhow::Result<ControlFlow<()>> {
        let heard = self.client.text(self.now_ms(), text);
        if !matches!(heard, Heard::Repeated) {
            self.printer.frame(text)?;
        }
        match heard {
            Heard::Notification(delivery) => {
                self.printer.notification(&delivery)?;
                self.left = self.left.map(|left| left - 1);
                if self.left == Some(0) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Heard::Welcome(welcome) => {
                let resumed = if welcome.resume == Resume::Complete { ", nothing was missed" } else { "" };
                self.printer.status(&format!("connected to {}{resumed}", welcome.replica));
            }
            Heard::Gap(GapReason::Trimmed) => self.printer.status("gap: older ones are gone from history"),
            Heard::Gap(GapReason::Epoch) => {
                self.printer.status("gap: history began anew, what was before is gone")
            }
            Heard::Message(message) => self.printer.status(&message.to_json()),
            Heard::Error { code, detail, .. } => self.printer.status(&format!("{code}: {detail}")),
            Heard::Unreadable(error) => self.printer.status(&format!("a frame that cannot be read: {error}")),
            Heard::Repeated | Heard::Goodbye(_) | Heard::Nothing => {}
        }
        Ok(ControlFlow::Continue(()))
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

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
