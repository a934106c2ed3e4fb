use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use carillon_protocol::{Delivery, Severity};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::plain::{plain, plain_json};

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// Writes notifications to standard output and all other messages to standard error. Colours are for terminals.
pub(crate) struct Printer {
    pub(crate) json: bool,
}

impl Printer {
    /// Writes one line for a notification.
    pub(crate) fn notification(&self, delivery: &Delivery) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let notification = &delivery.notification;
        let time = notification.created_at.parse().unwrap_or_else(|_| Timestamp::now());
        let time = time.to_zoned(TimeZone::system()).strftime("%b %d %H:%M:%S");
        let severity = notification.severity.as_str();
        let colour = colour(notification.severity);
        let (title, body) = (plain(&notification.title), plain(&notification.body));
        let between = if title.is_empty() || body.is_empty() { "" } else { ": " };
        let from = notification.from.as_deref().map(|from| format!("from {}, ", plain(from)));
        let from = from.unwrap_or_default();
        let claimed_by = plain(&delivery.claimed_by);
        let mut out = anstream::stdout().lock();
        writeln!(
            out,
            "{DIM}{time}{DIM:#}  {colour}{severity:7}{colour:#}  {BOLD}{title}{BOLD:#}{between}{body}  {DIM}{from}claimed by {claimed_by}{DIM:#}"
        )?;
        out.flush()
    }

    /// Writes one line for a frame, unchanged except for characters that act on a terminal.
    pub(crate) fn frame(&self, text: &str) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", plain_json(text))?;
        out.flush()
    }

    /// Writes the state of the connection. An error is ignored.
    pub(crate) fn status(&self, words: &str) {
        let _ = writeln!(anstream::stderr().lock(), "{DIM}-- {}{DIM:#}", plain(words));
    }
}

fn colour(severity: Severity) -> Style {
    let colour = match severity {
        Severity::Info => AnsiColor::Blue,
        Severity::Success => AnsiColor::Green,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Error => AnsiColor::Red,
    };
    colour.on_default()
}
