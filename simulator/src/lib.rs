//! Runs the whole of Carillon in one thread on paused time: the replicas' own router, dispatch, hub, feeds and sockets, the
//! server in memory with the scripts of production, a network that delays, cuts and goes dead, and the client core and the
//! inbox of the viewer. One seed decides a run, and the run is checked against the five promises in `checks`.

mod checks;
mod course;
mod device;
mod entropy;
mod network;
mod plan;
mod replica;
mod shrink;
mod world;

use std::hash::{DefaultHasher, Hash, Hasher};

pub use plan::{Plan, Step};
use serde::{Deserialize, Serialize};
pub use shrink::shrink;

/// What came of a run.
#[derive(Debug, Deserialize, Serialize)]
pub struct Outcome {
    /// What was broken; empty when all promises were kept.
    pub broken: Vec<String>,
    /// Notifications that were shown, on all devices.
    pub shown: usize,
    /// Equal for two runs in which the same happened.
    pub fingerprint: u64,
}

impl Outcome {
    /// A run that did not end.
    pub fn failed(why: &str) -> Self {
        Self { broken: vec![why.to_owned()], shown: 0, fingerprint: 0 }
    }
}

/// Carries out a plan. A process carries out one: the fairness of `select!` depends on how many runtimes it had before.
///
/// # Panics
/// When a part of the run panics.
pub fn run(plan: &Plan) -> Outcome {
    entropy::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O can be built");
    let history = runtime.block_on(course::run(plan));
    let mut hasher = DefaultHasher::new();
    format!("{history:?}").hash(&mut hasher);
    Outcome {
        broken: checks::check(plan, &history),
        shown: history.devices.iter().map(|device| device.shown.len()).sum(),
        fingerprint: hasher.finish(),
    }
}
