//! One run: replicas, devices, a producer and what breaks, on paused time in one thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_broker::{Broker, Delay, Faults, Link, Settings};
use carillon_protocol::Audience;
use futures_util::future::join_all;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::device::{self, COMMANDS_MAX, Command, Record};
use crate::network::Path;
use crate::plan::{Action, Fault, Plan, TOPIC, To, USERS};
use crate::replica::Node;

/// The time of a run begins here, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_800_000_000_000;
/// After the last step everything works again, and this much later everything has arrived. The longest wait is that for a
/// connection that went dead without a word: a client gives it up after 60 s, and waits up to 30 s more.
const SETTLES: Duration = Duration::from_secs(150);
/// Then a device that is not connected has this many times that long to come back.
const COMES_BACK_TRIES: usize = 100;
const COMES_BACK_EVERY: Duration = Duration::from_millis(100);
/// After this a replica that was stopped is cut off.
const DRAIN: Duration = Duration::from_secs(9);
/// The producer pushes again after this.
const PUSH_AGAIN: Duration = Duration::from_millis(200);
/// Earlier states of Redis that can come back are kept this far apart.
const KEEP_EVERY: Duration = Duration::from_millis(250);

/// A notification that Redis accepted.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) to: Audience,
    pub(crate) at_ms: u64,
}

/// What happened in a run.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) accepted: Vec<Accepted>,
    /// Messages that devices sent: id, sender and recipient.
    pub(crate) sent: Vec<(String, String, String)>,
    /// When Redis lost data.
    pub(crate) losses_at_ms: Vec<u64>,
    pub(crate) devices: Vec<Record>,
    pub(crate) failures: Vec<String>,
}

/// What the parts of a run share.
pub(crate) struct World {
    begin: Instant,
    faults: Faults,
    delay: Delay,
    device_skew_ms: i64,
    tasks: TaskTracker,
    state: Mutex<State>,
}

struct State {
    /// By place; one that died is missing for a while.
    nodes: Vec<Option<Node>>,
    paths: Vec<Option<Path>>,
    offline: Vec<bool>,
    live: Vec<bool>,
    started: usize,
    accepted: Vec<Accepted>,
    sent: Vec<(String, String, String)>,
    losses_at_ms: Vec<u64>,
    earlier: Vec<(u64, Box<dyn FnOnce() + Send>)>,
    failures: Vec<String>,
}

impl World {
    fn new(plan: &Plan) -> Arc<Self> {
        let begin = Instant::now();
        let clock = move || BEGIN_MS + milliseconds(begin.elapsed());
        let (_, faults) = Broker::memory(Arc::new(clock));
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
        BEGIN_MS + self.elapsed_ms()
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broker of its own, over a network of its own.
    fn broker(&self) -> (Broker, Link) {
        self.faults.over_network(Settings::default(), Arc::clone(&self.delay))
    }

    /// Starts a replica in a place.
    fn start(&self, place: usize) {
        let (broker, link) = self.broker();
        let begin = self.begin;
        let clock = Arc::new(move || BEGIN_MS + milliseconds(begin.elapsed()));
        let mut state = self.state();
        state.started += 1;
        let name = format!("bff-{}", state.started);
        match Node::start(name, &broker, link, clock) {
            Ok(node) => state.nodes[place] = Some(node),
            Err(error) => state.failures.push(format!("a replica does not start: {error:#}")),
        }
    }

    /// Ends the replica of a place, with SIGTERM or without.
    async fn end(&self, place: usize, gently: bool) {
        let Some(mut node) = self.state().nodes[place].take() else { return };
        self.note_failure(&node);
        if gently {
            node.stop();
            // Whoever connects now finds another replica.
            let readers = node.readers.clone();
            let _ = tokio::time::timeout(DRAIN, readers.wait()).await;
        }
        node.end();
    }

    fn note_failure(&self, node: &Node) {
        if node.has_failed() {
            self.state().failures.push(format!("{} ended by itself", node.name));
        }
    }

    fn node<T>(&self, place: usize, act: impl FnOnce(&Node) -> T) -> Option<T> {
        self.state().nodes[place].as_ref().map(act)
    }

    async fn break_something(&self, fault: Fault, producer: &Link) {
        let pause = async |for_ms| sleep(Duration::from_millis(for_ms)).await;
        match fault {
            Fault::LoseReply { replica } => {
                self.node(replica, |node| node.link.lose_next_reply());
            }
            Fault::LoseReplyOfProducer => producer.lose_next_reply(),
            Fault::CutRedis { replica } => {
                self.node(replica, |node| node.link.cut());
            }
            Fault::RefuseRedis { replica, for_ms } => {
                let Some(link) = self.node(replica, |node| node.link.clone()) else { return };
                link.refuse(true);
                pause(for_ms).await;
                self.heal(replica, &link, |link| link.refuse(false));
            }
            Fault::HangRedis { replica, for_ms } => {
                let Some(link) = self.node(replica, |node| node.link.clone()) else { return };
                link.hang(true);
                pause(for_ms).await;
                self.heal(replica, &link, |link| link.hang(false));
            }
            Fault::CutSubscribers => self.faults.cut_subscribers(),
            Fault::RedisAway { for_ms } => {
                self.faults.go_away();
                pause(for_ms).await;
                self.faults.come_back();
            }
            Fault::RedisFull { for_ms } => {
                self.state().losses_at_ms.push(self.elapsed_ms());
                self.faults.fill(true);
                pause(for_ms).await;
                self.faults.fill(false);
                self.state().losses_at_ms.push(self.elapsed_ms());
            }
            Fault::Forget => {
                self.state().losses_at_ms.push(self.elapsed_ms());
                self.faults.forget();
            }
            Fault::Return { lag_ms } => {
                let now_ms = self.elapsed_ms();
                let mut state = self.state();
                let earlier = state.earlier.iter().rposition(|(at_ms, _)| *at_ms + lag_ms <= now_ms);
                if let Some(at) = earlier {
                    let (_, restore) = state.earlier.swap_remove(at);
                    state.losses_at_ms.push(now_ms);
                    state.earlier.clear();
                    drop(state);
                    restore();
                }
            }
            Fault::CutDevice { device } => {
                if let Some(path) = self.state().paths[device].take() {
                    path.cut();
                }
            }
            Fault::HangDevice { device } => {
                if let Some(path) = &self.state().paths[device] {
                    path.hang();
                }
            }
            Fault::Offline { device, for_ms } => {
                {
                    let mut state = self.state();
                    state.offline[device] = true;
                    if let Some(path) = state.paths[device].take() {
                        path.cut();
                    }
                }
                pause(for_ms).await;
                self.state().offline[device] = false;
            }
            Fault::Kill { replica, for_ms } => {
                self.end(replica, false).await;
                pause(for_ms).await;
                self.start_where_missing(replica);
            }
            Fault::Deploy => {
                let places = self.state().nodes.len();
                for place in 0..places {
                    let Some(old) = self.state().nodes[place].take() else { continue };
                    self.note_failure(&old);
                    // The new one takes readers before the old one is stopped.
                    self.start(place);
                    let mut old = old;
                    old.stop();
                    let readers = old.readers.clone();
                    let _ = tokio::time::timeout(DRAIN, readers.wait()).await;
                    old.end();
                }
            }
        }
    }

    /// What was broken for a replica works again, unless the replica is gone, and has no network for good.
    fn heal(&self, place: usize, link: &Link, heal: impl FnOnce(&Link)) {
        let is_there = self.node(place, |node| node.link.is_same(link)) == Some(true);
        if is_there {
            heal(link);
        }
    }

    fn start_where_missing(&self, place: usize) {
        if self.state().nodes[place].is_none() {
            self.start(place);
        }
    }
}

/// Carries out a plan.
pub(crate) async fn run(plan: &Plan) -> History {
    let world = World::new(plan);
    world.state().nodes = (0..plan.replicas).map(|_| None).collect();
    (0..plan.replicas).for_each(|place| world.start(place));
    let mut commands = Vec::new();
    let mut devices = Vec::new();
    for (device, user) in plan.devices.iter().enumerate() {
        let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
        commands.push(sender);
        devices.push(device::run(Arc::clone(&world), device, *user, receiver));
    }
    let devices = world.tasks.spawn(join_all(devices));
    let (broker, producer) = world.broker();
    let (pushes, to_push) = mpsc::channel(1_024);
    let pushing = world.tasks.spawn(produce(Arc::clone(&world), broker, to_push));
    let keeping = plan.faults().any(|fault| matches!(fault, Fault::Return { .. }));
    let stop_keeping = tokio_util::sync::CancellationToken::new();
    if keeping {
        let (world, stop) = (Arc::clone(&world), stop_keeping.clone());
        world.tasks.clone().spawn(async move {
            let keep = async {
                loop {
                    let now_ms = world.elapsed_ms();
                    let restore = world.faults.remember();
                    world.state().earlier.push((now_ms, Box::new(restore)));
                    sleep(KEEP_EVERY).await;
                }
            };
            tokio::select! { () = stop.cancelled() => {}, () = keep => {} }
        });
    }
    let mut number = 0;
    let broken = TaskTracker::new();
    for step in &plan.steps {
        sleep_until(world.begin + Duration::from_millis(step.at_ms)).await;
        match &step.action {
            Action::Push { to, count } => {
                for _ in 0..*count {
                    number += 1;
                    let to = match to {
                        To::Everyone => Audience::Everyone,
                        To::User(user) => Audience::User(USERS[*user].to_owned()),
                        To::Topic => Audience::Topic(TOPIC.to_owned()),
                    };
                    let _ = pushes.send((format!("n{number}"), to)).await;
                }
            }
            Action::Send { device, to } => {
                number += 1;
                let (id, to) = (format!("m{number}"), USERS[*to].to_owned());
                let from = plan.devices[*device].unwrap_or_default().to_owned();
                world.state().sent.push((id.clone(), from, to.clone()));
                let _ = commands[*device].try_send(Command::Send { id, to });
            }
            Action::ReadAll { device } => {
                let _ = commands[*device].try_send(Command::ReadAll);
            }
            Action::Fault(fault) => {
                let (world, fault, producer) = (Arc::clone(&world), *fault, producer.clone());
                broken.spawn(async move { world.break_something(fault, &producer).await });
            }
        }
    }
    broken.close();
    broken.wait().await;
    stop_keeping.cancel();
    world.faults.come_back();
    world.faults.fill(false);
    (0..plan.replicas).for_each(|place| world.start_where_missing(place));
    drop(pushes);
    let _ = pushing.await;
    sleep(SETTLES).await;
    // A token may run out at this very moment.
    for _ in 0..COMES_BACK_TRIES {
        if world.state().live.iter().all(|live| *live) {
            break;
        }
        sleep(COMES_BACK_EVERY).await;
    }
    let live = world.state().live.clone();
    commands.clear();
    let mut devices = devices.await.unwrap_or_default();
    for (record, live) in devices.iter_mut().zip(live) {
        record.is_live = live;
    }
    let mut nodes: Vec<_> = world.state().nodes.iter_mut().filter_map(Option::take).collect();
    for node in &mut nodes {
        world.note_failure(node);
        // The port, which sets this latch, is not simulated.
        let missing: Vec<_> =
            node.readiness.missing().into_iter().filter(|latch| *latch != "connections").collect();
        if !missing.is_empty() {
            world.state().failures.push(format!("{} is not ready: {missing:?}", node.name));
        }
        node.end();
    }
    let mut state = world.state();
    History {
        accepted: std::mem::take(&mut state.accepted),
        sent: std::mem::take(&mut state.sent),
        losses_at_ms: std::mem::take(&mut state.losses_at_ms),
        devices,
        failures: std::mem::take(&mut state.failures),
    }
}

/// Pushes one after the other, again and again until Redis takes it.
async fn produce(world: Arc<World>, broker: Broker, mut to_push: mpsc::Receiver<(String, Audience)>) {
    while let Some((id, to)) = to_push.recv().await {
        let entry = serde_json::json!({ "id": id, "body": "b", "to": to }).to_string().into_bytes();
        while broker.push(std::slice::from_ref(&entry)).await.is_err() {
            sleep(PUSH_AGAIN).await;
        }
        let at_ms = world.elapsed_ms();
        world.state().accepted.push(Accepted { id, to, at_ms });
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
