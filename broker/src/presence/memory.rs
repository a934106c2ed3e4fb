//! What presence.lua and online.lua do, inside one process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carillon_protocol::{Audience, format_timestamp};

use super::{Beat, Beaten, Presence, milliseconds};
use crate::limits::PRESENCE_BATCH_MAX_USERS;
use crate::memory::{MemoryEngine, Step, Store};
use crate::{BrokerError, Kind};

/// Runs, their users, and who is leaving.
#[derive(Clone, Default)]
pub(crate) struct People {
    runs: BTreeMap<String, Run>,
    present: BTreeMap<String, Present>,
    /// Users without a connection, with the moment when the last one went.
    leaving: BTreeMap<String, u64>,
    /// Until then no run's users are taken out.
    calm_until_ms: u64,
}

#[derive(Clone, Default)]
struct Run {
    lease_until_ms: u64,
    users: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct Present {
    since_ms: u64,
    connections: BTreeMap<String, usize>,
}

impl People {
    /// Renews or ends a lease, and says whether it was held.
    fn renew(&mut self, beat: &Beat<'_>, now_ms: u64) -> bool {
        let run = self.runs.entry(beat.run.to_owned()).or_default();
        let held = run.lease_until_ms > now_ms;
        run.lease_until_ms = if beat.lease.is_zero() { 0 } else { now_ms + milliseconds(beat.lease) };
        if !held && !beat.lease.is_zero() {
            self.calm_until_ms = now_ms + milliseconds(beat.grace);
        }
        held && !beat.lease.is_zero()
    }

    /// Notes a user's connections in a run. Says whether the user was not online before.
    fn enter(&mut self, user: &str, run: &str, connections: usize, now_ms: u64) -> bool {
        self.runs.entry(run.to_owned()).or_default().users.insert(user.to_owned());
        self.leaving.remove(user);
        let new = !self.present.contains_key(user);
        let present = self.present.entry(user.to_owned()).or_default();
        if new {
            present.since_ms = now_ms;
        }
        present.connections.insert(run.to_owned(), connections);
        new
    }

    fn take_out(&mut self, user: &str, run: &str, at_ms: u64) {
        let Some(present) = self.present.get_mut(user) else { return };
        if present.connections.remove(run).is_some() && present.connections.is_empty() {
            self.leaving.insert(user.to_owned(), at_ms);
        }
    }

    /// Takes out the users of runs whose lease is over. Says whether some may be left.
    fn sweep(&mut self, grace: Duration, now_ms: u64) -> bool {
        if self.calm_until_ms > now_ms {
            return false;
        }
        let is_over = |run: &Run| run.lease_until_ms <= now_ms;
        let over: Vec<_> =
            self.runs.iter().filter(|(_, run)| is_over(run)).map(|(name, _)| name.clone()).collect();
        let mut left = PRESENCE_BATCH_MAX_USERS;
        for name in over {
            let Some(run) = self.runs.get_mut(&name) else { continue };
            let gone: Vec<_> = run.users.iter().take(left).cloned().collect();
            run.users.retain(|user| !gone.contains(user));
            if run.users.is_empty() {
                self.runs.remove(&name);
            }
            left -= gone.len();
            for user in gone {
                self.take_out(&user, &name, now_ms.saturating_sub(milliseconds(grace)));
            }
        }
        left == 0
    }

    /// Takes the users who left long enough ago, with when they did.
    fn due(&mut self, grace: Duration, now_ms: u64) -> Vec<(String, u64)> {
        let mut due: Vec<_> = self
            .leaving
            .iter()
            .filter(|(_, at_ms)| **at_ms + milliseconds(grace) <= now_ms)
            .map(|(user, at_ms)| (user.clone(), *at_ms))
            .collect();
        due.sort_by_key(|(_, at_ms)| *at_ms);
        due.truncate(PRESENCE_BATCH_MAX_USERS);
        for (user, _) in &due {
            self.leaving.remove(user);
            self.present.remove(user);
        }
        due
    }

    /// When there is something to do without anybody's coming or going, from now.
    fn next_look(&self, beat: &Beat<'_>, now_ms: u64) -> Option<Duration> {
        let is_calm = self.calm_until_ms > now_ms;
        let calm = is_calm.then_some(self.calm_until_ms);
        let others = self.runs.iter().filter(|(name, _)| !is_calm && *name != beat.run);
        let ends = others.map(|(_, run)| run.lease_until_ms).filter(|until_ms| *until_ms > now_ms);
        let leaves = self.leaving.values().map(|at_ms| at_ms + milliseconds(beat.grace));
        let next_ms = calm.into_iter().chain(ends).chain(leaves).min()?;
        Some(Duration::from_millis(next_ms.saturating_sub(now_ms).max(1)))
    }
}

fn report(store: &mut Store, step: &mut Step<'_>, user: &str, online: bool, at_ms: u64) {
    let raw = serde_json::json!({ "user": user, "online": online, "at": format_timestamp(at_ms) });
    let audience = Audience::Topic(format!("presence:{user}"));
    store.append(step, Kind::Presence, &audience, raw.to_string().into_bytes());
}

impl MemoryEngine {
    pub(super) fn beat(&self, beat: &Beat<'_>) -> Result<Beaten, BrokerError> {
        let mut step = self.step(beat.run, beat.fan_out);
        let now_ms = step.now_ms;
        let mut store = self.store()?;
        let held = store.people.renew(beat, now_ms);
        for (user, connections) in beat.changes {
            if *connections == 0 {
                if let Some(run) = store.people.runs.get_mut(beat.run) {
                    run.users.remove(user);
                }
                store.people.take_out(user, beat.run, now_ms);
            } else if store.people.enter(user, beat.run, *connections, now_ms) {
                report(&mut store, &mut step, user, true, now_ms);
            }
        }
        let more = store.people.sweep(beat.grace, now_ms);
        for (user, at_ms) in store.people.due(beat.grace, now_ms) {
            report(&mut store, &mut step, &user, false, at_ms);
        }
        let due = store.people.next_look(beat, now_ms);
        let epoch = store.epoch.clone();
        self.publish(&store, step.fanouts);
        Ok(Beaten { epoch, held, more, due })
    }

    pub(super) fn presence(&self, users: &[String]) -> Result<Vec<Presence>, BrokerError> {
        let now_ms = self.now_ms();
        let store = self.store()?;
        let live = |run: &String| store.people.runs.get(run).is_some_and(|run| run.lease_until_ms > now_ms);
        let presence = users.iter().map(|user| {
            let present = store.people.present.get(user);
            let runs = present.into_iter().flat_map(|present| &present.connections);
            Presence {
                user: user.clone(),
                connections: runs.filter(|(run, _)| live(run)).map(|(_, connections)| connections).sum(),
                since_ms: present.map(|present| present.since_ms),
            }
        });
        Ok(presence.collect())
    }
}
