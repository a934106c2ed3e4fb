//! The five promises, checked on what happened in a run.

use std::collections::{BTreeMap, BTreeSet};

use carillon_frontend::inbox::LIST_MAX_ROWS;
use carillon_protocol::Audience;

use crate::course::History;
use crate::device::Record;
use crate::plan::Plan;

/// A reply that Redis sent may be lost with the data just after; this is added to the time on the way, in milliseconds.
const SLACK_MS: u64 = 50;

/// Returns what was broken.
pub(crate) fn check(plan: &Plan, history: &History) -> Vec<String> {
    let mut broken = history.failures.clone();
    for (device, record) in history.devices.iter().enumerate() {
        let mut faults = Vec::new();
        shown_once(plan, history, device, record, &mut faults);
        if !plan.loses_data() {
            in_order(record, &mut faults);
            statuses_move_forward(record, &mut faults);
            if !record.gaps_at_ms.is_empty() {
                faults.push(format!("was told of a gap at {:?} ms", record.gaps_at_ms));
            }
        }
        if record.unread != record.unread_rows {
            faults.push(format!("counts {} unread and lists {}", record.unread, record.unread_rows));
        }
        if !record.is_live {
            faults.push(format!("is not connected at the end ({:?})", record.stopped));
        }
        faults.extend(record.unreadable.iter().map(|text| format!("received what it cannot read: {text}")));
        broken.extend(
            faults.into_iter().map(|fault| format!("device {device} ({:?}) {fault}", plan.devices[device])),
        );
    }
    if !plan.loses_data() {
        devices_agree(plan, history, &mut broken);
    }
    broken
}

/// Whether a device reads an audience.
fn reads(plan: &Plan, device: usize, audience: &Audience) -> bool {
    match audience {
        Audience::User(user) => plan.devices[device] == Some(user.as_str()),
        _ => true,
    }
}

/// 1. What was accepted is shown once on each device that should show it.
fn shown_once(plan: &Plan, history: &History, device: usize, record: &Record, faults: &mut Vec<String>) {
    let mut counts: BTreeMap<(Option<&str>, &str), usize> = BTreeMap::new();
    for shown in &record.shown {
        *counts.entry((shown.from.as_deref(), &shown.id)).or_default() += 1;
    }
    faults.extend(
        counts
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|((_, id), count)| format!("showed {id} {count} times")),
    );
    // What Redis lost is announced.
    let lost = |at_ms: u64| {
        history.losses_at_ms.iter().any(|loss_ms| {
            *loss_ms + 2 * plan.delay_max_ms + SLACK_MS >= at_ms
                && record.gaps_at_ms.iter().any(|gap_ms| gap_ms >= loss_ms)
        })
    };
    for accepted in history.accepted.iter().filter(|one| reads(plan, device, &one.to)) {
        if !counts.contains_key(&(None, accepted.id.as_str())) && !lost(accepted.at_ms) {
            faults.push(format!("never showed {}, accepted at {} ms", accepted.id, accepted.at_ms));
        }
    }
    for (id, from, to) in &history.sent {
        let was_accepted = history.devices.iter().any(|record| record.statuses.contains_key(id));
        let is_for_it = plan.devices[device] == Some(to.as_str());
        let was_shown = counts.contains_key(&(Some(from.as_str()), id.as_str()));
        if was_accepted && is_for_it && !was_shown && !plan.loses_data() {
            faults.push(format!("never showed the message {id} of {from}"));
        }
    }
}

/// 2. What is for one audience is shown in the order in which it was pushed.
fn in_order(record: &Record, faults: &mut Vec<String>) {
    let mut last: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
    let mut cursors: BTreeMap<&str, &carillon_protocol::Cursor> = BTreeMap::new();
    for shown in &record.shown {
        if let Some(number) = shown.id.strip_prefix('n').and_then(|number| number.parse().ok())
            && let Some((before, id)) = last.insert(&shown.audience, (number, &shown.id))
            && before >= number
        {
            faults.push(format!("showed {} after {id}", shown.id));
        }
        if let Some(cursor) = &shown.cursor
            && let Some(before) = cursors.insert(&shown.audience, cursor)
            && before.epoch == cursor.epoch
            && before.position >= cursor.position
        {
            faults.push(format!("moved from {before} back to {cursor}"));
        }
    }
}

/// 3. A status only moves forward.
fn statuses_move_forward(record: &Record, faults: &mut Vec<String>) {
    for (id, statuses) in &record.statuses {
        if !statuses.is_sorted() {
            faults.push(format!("was told of {id}: {statuses:?}"));
        }
    }
}

/// 4. All devices of a user show the same, and count the same as unread.
fn devices_agree(plan: &Plan, history: &History, broken: &mut Vec<String>) {
    let mut first: BTreeMap<&str, (usize, BTreeSet<&String>, usize)> = BTreeMap::new();
    for (device, record) in history.devices.iter().enumerate() {
        let Some(user) = plan.devices[device] else { continue };
        if record.rows.len() >= LIST_MAX_ROWS {
            continue;
        }
        let rows: BTreeSet<_> = record.rows.iter().collect();
        let (other, shown, unread) =
            first.entry(user).or_insert_with(|| (device, rows.clone(), record.unread));
        if *shown != rows {
            broken.push(format!("devices {other} and {device} of {user} do not list the same"));
        }
        if *unread != record.unread {
            broken.push(format!(
                "{user} has {unread} unread on device {other}, and {} on {device}",
                record.unread
            ));
        }
    }
}
