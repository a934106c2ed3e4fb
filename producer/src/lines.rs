use std::time::Duration;

use anyhow::{Context, bail};
use carillon_broker::Broker;
use carillon_protocol::Audience;
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use crate::entry::from_line;
use crate::input::{Input, Line};
use crate::push::push;

/// Maximum lines of one push.
const BATCH_MAX_LINES: usize = 64;
/// A push takes no further line once it has this many bytes.
const BATCH_MAX_BYTES: usize = 256 * 1024;
/// How long lines that were read are still tried after the stop.
const GRACE: Duration = Duration::from_secs(5);

/// Pushes one notification for each line of `input`, in order, until its end or until `stop`. No line is read while others
/// are not pushed yet, so at most one batch waits while Redis does not answer. A bad line is reported with its number and
/// stops nothing.
///
/// # Errors
/// When there were bad lines, when the input cannot be read, or when Redis did not accept the last lines in time after the
/// stop; the error names the lines.
pub async fn push_lines(
    broker: &Broker,
    to: &Audience,
    input: impl AsyncRead + Unpin,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut input = Input::new(input);
    let (mut pushed, mut bad) = (0, 0);
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            batch = Batch::read(&mut input, to) => batch.context("cannot read the input")?,
        };
        bad += batch.bad;
        if !batch.entries.is_empty() {
            let lines = batch.entries.len();
            if let Err(error) = push(broker, &batch.entries, stop, GRACE).await {
                let (first, last) = (batch.first, batch.last);
                bail!(
                    "{pushed} lines are pushed; lines {first} to {last} ({lines} good ones) may not be: {error}"
                );
            }
            pushed += lines;
            tracing::debug!(lines, line.last = batch.last, "pushed");
        }
        if batch.is_last {
            break;
        }
    }
    tracing::info!(pushed, bad, stopped = stop.is_cancelled(), line.last = input.number(), "done");
    if bad > 0 {
        bail!("{bad} of {} lines are not notifications and were not pushed", pushed + bad);
    }
    Ok(())
}

/// The lines that were complete when the first of them was read.
#[derive(Default)]
struct Batch {
    entries: Vec<Vec<u8>>,
    /// The numbers of the first and the last of the good lines.
    first: u64,
    last: u64,
    bad: usize,
    is_last: bool,
}

impl Batch {
    async fn read(input: &mut Input<impl AsyncRead + Unpin>, to: &Audience) -> std::io::Result<Self> {
        let mut batch = Self::default();
        let mut bytes = 0;
        loop {
            let Some(line) = input.next().await? else {
                batch.is_last = true;
                return Ok(batch);
            };
            bytes += batch.take(line, to);
            let is_full = batch.entries.len() == BATCH_MAX_LINES || bytes >= BATCH_MAX_BYTES;
            if is_full || !input.has_line() {
                return Ok(batch);
            }
        }
    }

    /// Adds a line; returns its size.
    fn take(&mut self, line: Line, to: &Audience) -> usize {
        let Line { number, text } = line;
        if text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
            return 0;
        }
        match text.and_then(|text| from_line(&text, to)) {
            Ok(entry) => {
                let size = entry.len();
                if self.entries.is_empty() {
                    self.first = number;
                }
                self.last = number;
                self.entries.push(entry);
                size
            }
            Err(detail) => {
                tracing::error!(line = number, detail, "not a notification");
                self.bad += 1;
                0
            }
        }
    }
}
