//! The course of a run: what the plan wants is done at its time, then everything works again, settles, and is recorded.

use std::sync::Arc;
use std::time::Duration;

use carillon_broker::{Broker, Link};
use carillon_protocol::Audience;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::device::{self, COMMANDS_MAX, Command, Record};
use crate::plan::{Action, Fault, Plan, TOPIC, To, USERS};
use crate::world::{Accepted, World};

/// After the last step everything works again, and this much later everything has arrived. The longest wait is that for a
/// connection that went dead without a word: a client gives it up after 60 s, and waits up to 30 s more.
const SETTLES: Duration = Duration::from_secs(150);
/// Then a device that is not connected has this many times that long to come back.
const COMES_BACK_TRIES: usize = 100;
const COMES_BACK_EVERY: Duration = Duration::from_millis(100);
/// The producer pushes again after this.
const PUSH_AGAIN: Duration = Duration::from_millis(200);
/// Earlier states of Redis that can come back are kept this far apart.
const KEEP_EVERY: Duration = Duration::from_millis(250);

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
    let stop_keeping = CancellationToken::new();
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
                broken.spawn(async move { break_something(&world, fault, &producer).await });
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

/// Breaks something, and mends it after its time.
async fn break_something(world: &World, fault: Fault, producer: &Link) {
    let pause = async |for_ms| sleep(Duration::from_millis(for_ms)).await;
    match fault {
        Fault::LoseReply { replica } => {
            world.node(replica, |node| node.link.lose_next_reply());
        }
        Fault::LoseReplyOfProducer => producer.lose_next_reply(),
        Fault::CutRedis { replica } => {
            world.node(replica, |node| node.link.cut());
        }
        Fault::RefuseRedis { replica, for_ms } => {
            let Some(link) = world.node(replica, |node| node.link.clone()) else { return };
            link.refuse(true);
            pause(for_ms).await;
            world.heal(replica, &link, |link| link.refuse(false));
        }
        Fault::HangRedis { replica, for_ms } => {
            let Some(link) = world.node(replica, |node| node.link.clone()) else { return };
            link.hang(true);
            pause(for_ms).await;
            world.heal(replica, &link, |link| link.hang(false));
        }
        Fault::CutSubscribers => world.faults.cut_subscribers(),
        Fault::RedisAway { for_ms } => {
            world.faults.go_away();
            pause(for_ms).await;
            world.faults.come_back();
        }
        Fault::RedisFull { for_ms } => {
            world.state().losses_at_ms.push(world.elapsed_ms());
            world.faults.fill(true);
            pause(for_ms).await;
            world.faults.fill(false);
            world.state().losses_at_ms.push(world.elapsed_ms());
        }
        Fault::Forget => {
            world.state().losses_at_ms.push(world.elapsed_ms());
            world.faults.forget();
        }
        Fault::Return { lag_ms } => {
            let now_ms = world.elapsed_ms();
            let mut state = world.state();
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
            if let Some(path) = world.state().paths[device].take() {
                path.cut();
            }
        }
        Fault::HangDevice { device } => {
            if let Some(path) = &world.state().paths[device] {
                path.hang();
            }
        }
        Fault::Offline { device, for_ms } => {
            {
                let mut state = world.state();
                state.offline[device] = true;
                if let Some(path) = state.paths[device].take() {
                    path.cut();
                }
            }
            pause(for_ms).await;
            world.state().offline[device] = false;
        }
        Fault::Kill { replica, for_ms } => {
            world.kill(replica);
            pause(for_ms).await;
            world.start_where_missing(replica);
        }
        Fault::Deploy => {
            let places = world.state().nodes.len();
            for place in 0..places {
                world.replace(place).await;
            }
        }
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
