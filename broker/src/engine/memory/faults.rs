use std::sync::Arc;

use redis::Value;

use super::keyspace::Keyspace;
use super::{Bytes, Data, Delay, Link, Server, random_replid};
use crate::engine::Engine;
use crate::{Broker, Settings};

/// The faults that tests inject into the server.
#[derive(Clone)]
pub struct Faults(Server);

/// The faults that are active now.
#[derive(Clone, Copy, Default)]
pub(super) struct Switches {
    pub(super) away: bool,
    pub(super) full: bool,
    lose_reply: bool,
}

impl Switches {
    /// Whether the reply of this command is lost, which happens only to scripts.
    pub(super) fn lose(&mut self, arguments: &[Bytes]) -> bool {
        let is_script = arguments.first().is_some_and(|name| name.eq_ignore_ascii_case(b"EVALSHA"));
        is_script && std::mem::take(&mut self.lose_reply)
    }
}

impl Faults {
    pub(crate) fn new(server: Server) -> Self {
        Self(server)
    }

    /// Ends every subscription, as a killed connection does.
    pub fn cut_subscribers(&self) {
        self.0.data().subscribers.cut();
    }

    /// The next script is carried out and its reply is lost.
    pub fn lose_next_reply(&self) {
        self.0.data().faults.lose_reply = true;
    }

    /// The server does not answer until [`Faults::come_back`].
    pub fn go_away(&self) {
        let mut data = self.0.data();
        data.faults.away = true;
        data.subscribers.cut();
    }

    /// The server answers again.
    pub fn come_back(&self) {
        self.0.data().faults.away = false;
        self.0.shared.back.notify_waiters();
    }

    /// Refuses every command that needs memory while `full`, as a server at its maxmemory does.
    pub fn fill(&self, full: bool) {
        self.0.data().faults.full = full;
    }

    /// Sets the server's clock wrong by so many milliseconds; the clock of the clients stays right.
    pub fn set_clock_ahead(&self, milliseconds: i64) {
        self.0.data().keys.skew_ms = milliseconds;
    }

    /// All data is lost, as after a restart without persistence.
    pub fn forget(&self) {
        let mut data = self.0.data();
        data.keys.clear();
        data.replid = random_replid();
        data.subscribers.cut();
    }

    /// All data is lost and every connection stays, as when someone flushes the database.
    pub fn flush(&self) {
        self.0.data().keys.clear();
    }

    /// Returns a function that restores the data as they are now, under a new epoch, as a promoted replica does that lagged.
    pub fn remember(&self) -> impl FnOnce() + use<> {
        let (server, earlier): (Server, Keyspace) = (self.0.clone(), self.0.data().keys.clone());
        move || {
            let mut data = server.data();
            data.keys = earlier;
            data.replid = random_replid();
            data.subscribers.cut();
        }
    }

    /// Carries out one command on the server, as an operator does by hand, and returns the values of the answer, each on a
    /// line.
    pub fn run(&self, command: &[&str]) -> String {
        let command: Vec<Bytes> = command.iter().map(|word| word.as_bytes().to_vec()).collect();
        let reply = Data::call(&mut self.0.data(), &command);
        reply.map_or_else(|error| error, |value| lines(&value).join("\n"))
    }

    /// Returns another broker on the same server, over a network that delays each message, and that network.
    pub fn over_network(&self, settings: Settings, delay: Delay) -> (Broker, Link) {
        let link = Link::new(&self.0, delay);
        (Broker(Arc::new(Engine::memory(link.server(), settings))), link)
    }

    /// Returns another broker on the same server.
    pub fn again(&self, settings: Settings) -> Broker {
        Broker(Arc::new(Engine::memory(self.0.clone(), settings)))
    }
}

fn lines(value: &Value) -> Vec<String> {
    match value {
        Value::Int(number) => vec![number.to_string()],
        Value::BulkString(text) => vec![String::from_utf8_lossy(text).into_owned()],
        Value::SimpleString(text) => vec![text.clone()],
        Value::Okay => vec!["OK".to_owned()],
        Value::Array(values) => values.iter().flat_map(lines).collect(),
        _ => vec![String::new()],
    }
}
