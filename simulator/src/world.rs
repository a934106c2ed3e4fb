//! What the parts of a run share: the replicas by their places, the ways to them, and what was recorded.

use std::sync::Arc;
use std::time::Duration;

use carillon_broker::{Broker, Delay, Faults, Link, Settings};
use carillon_protocol::Audience;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::DuplexStream;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::network::Path;
use crate::plan::Plan;
use crate::replica::Node;

/// The time of a run begins here, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_800_000_000_000;
/// After this a replica that was stopped is cut off.
const DRAIN: Duration = Duration::from_secs(9);

/// A notification that Redis accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) to: Audience,
    pub(crate) at_ms: u64,
}

/// What the parts of a run share.
pub(crate) struct World {
    pub(crate) begin: Instant,
    pub(crate) faults: Faults,
    delay: Delay,
    device_skew_ms: i64,
    pub(crate) tasks: TaskTracker,
    state: Mutex<State>,
}

pub(crate) struct State {
    /// By place; one that died is missing for a while.
    pub(crate) nodes: Vec<Option<Node>>,
    pub(crate) paths: Vec<Option<Path>>,
    pub(crate) offline: Vec<bool>,
    pub(crate) live: Vec<bool>,
    started: usize,
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) sent: Vec<(String, String, String)>,
    pub(crate) losses_at_ms: Vec<u64>,
    pub(crate) earlier: Vec<(u64, Box<dyn FnOnce() + Send>)>,
    pub(crate) failures: Vec<String>,
}

impl World {
    pub(crate) fn new(plan: &Plan) -> Arc<Self> {
        let begin = Instant::now();
        let (_, faults) = Broker::memory(Arc::new(move || now_ms(begin)));
        faults.set_clock_ahead(plan.skew_ms);
        let delay_max_ms = plan.delay_max_ms;
        let devices = plan.devices.len();
        Arc::new(Self {
            begin,
            faults,
            delay: Arc::new(move || Duration::from_millis(fastrand::u64(0..=delay_max_ms))),
            device_skew_ms: -plan.skew_ms,
            tasks: TaskTracker::new(),
            state: Mutex::new(State {
                nodes: Vec::new(),
                paths: vec![None; devices],
                offline: vec![false; devices],
                live: vec![false; devices],
                started: 0,
                accepted: Vec::new(),
                sent: Vec::new(),
                losses_at_ms: Vec::new(),
                earlier: Vec::new(),
                failures: Vec::new(),
            }),
        })
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        milliseconds(self.begin.elapsed())
    }

    /// The clock of the replicas.
    pub(crate) fn now_ms(&self) -> u64 {
        now_ms(self.begin)
    }

    /// The clock of a device.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.now_ms().saturating_add_signed(self.device_skew_ms)
    }

    pub(crate) fn set_live(&self, device: usize, live: bool) {
        self.state().live[device] = live;
    }

    /// Opens a connection of a device to one of the replicas, unless none answers.
    pub(crate) fn dial(&self, device: usize) -> Option<DuplexStream> {
        let mut state = self.state();
        if state.offline[device] {
            return None;
        }
        let up: Vec<_> = (0..state.nodes.len()).filter(|at| state.nodes[*at].is_some()).collect();
        let at = fastrand::choice(up)?;
        let (client, server, path) = Path::connect(&self.delay, &self.tasks);
        state.nodes[at].as_mut()?.accept(server, path.clone(), &self.tasks);
        state.paths[device] = Some(path);
        Some(client)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A broker of its own, over a network of its own.
    pub(crate) fn broker(&self) -> (Broker, Link) {
        self.faults.over_network(Settings::default(), Arc::clone(&self.delay))
    }

    /// Starts a replica in a place.
    pub(crate) fn start(&self, place: usize) {
        let (broker, link) = self.broker();
        let begin = self.begin;
        let mut state = self.state();
        state.started += 1;
        let name = format!("bff-{}", state.started);
        match Node::start(name, &broker, link, Arc::new(move || now_ms(begin))) {
            Ok(node) => state.nodes[place] = Some(node),
            Err(error) => state.failures.push(format!("a replica does not start: {error:#}")),
        }
    }

    /// Kills the replica of a place.
    pub(crate) fn kill(&self, place: usize) {
        let Some(mut node) = self.state().nodes[place].take() else { return };
        self.note_failure(&node);
        node.end();
    }

    /// Replaces the replica of a place as a deploy does: the new one takes readers before the old one is stopped.
    pub(crate) async fn replace(&self, place: usize) {
        let Some(mut old) = self.state().nodes[place].take() else { return };
        self.note_failure(&old);
        self.start(place);
        old.stop();
        let readers = old.readers.clone();
        let _ = tokio::time::timeout(DRAIN, readers.wait()).await;
        old.end();
    }

    pub(crate) fn note_failure(&self, node: &Node) {
        if node.has_failed() {
            self.state().failures.push(format!("{} ended by itself", node.name));
        }
    }

    pub(crate) fn node<T>(&self, place: usize, act: impl FnOnce(&Node) -> T) -> Option<T> {
        self.state().nodes[place].as_ref().map(act)
    }

    /// What was broken for a replica works again, unless the replica is gone, and has no network for good.
    pub(crate) fn heal(&self, place: usize, link: &Link, heal: impl FnOnce(&Link)) {
        let is_there = self.node(place, |node| node.link.is_same(link)) == Some(true);
        if is_there {
            heal(link);
        }
    }

    pub(crate) fn start_where_missing(&self, place: usize) {
        if self.state().nodes[place].is_none() {
            self.start(place);
        }
    }
}

/// The time by the clock of a run that began then, in milliseconds since 1970.
fn now_ms(begin: Instant) -> u64 {
    BEGIN_MS + milliseconds(begin.elapsed())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
