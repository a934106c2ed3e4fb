//! Every metric of a replica: its name, its meaning, and the one function that updates it. A test reads [`ALL`] and fails
//! for a metric that is never updated.

mod limit;

use carillon_broker::Batch;
use carillon_protocol::{CloseCode, GapReason, Status};
use carillon_service::{PortLimit, Readiness, log_lines_dropped};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use strum::IntoStaticStr;

pub(crate) use limit::Limit;

/// The name and the meaning of each metric.
pub const ALL: &[(&str, &str)] = &[
    ("carillon_entries_claimed_total", "entries taken from the list, in history and published"),
    ("carillon_entries_repeated_total", "entries dropped as repeats of an earlier id"),
    ("carillon_entries_refused_total", "entries written to the dead list, by reason"),
    ("carillon_claims_failed_total", "claims that Redis did not answer or refused"),
    (
        "carillon_claim_faults_total",
        "commands that Redis refused after entries were in history, such as their publication",
    ),
    ("carillon_claims_total", "claims, one script each, including those of an empty list"),
    (WAITING, "entries that waited in the list at the last claim"),
    ("carillon_fanout_lost_total", "times that the fan-out connection was lost"),
    (
        "carillon_rings_refilled_total",
        "audiences whose missed entries were read once for all their readers after a lost connection",
    ),
    ("carillon_fanout_holes_total", "holes in fan-out while the connection stayed up"),
    ("carillon_readers_joined_total", "readers that joined, by transport"),
    ("carillon_readers_left_total", "readers that left, by transport; joined minus left are connected"),
    ("carillon_readers_closed_total", "WebSockets that this side closed, by close code"),
    ("carillon_readers_refused_total", "readers refused before the upgrade, by status"),
    ("carillon_notifications_sent_total", "notifications written to readers, by transport"),
    ("carillon_notifications_expired_total", "notifications not sent because they had expired"),
    ("carillon_history_reads_total", "pages of history read"),
    ("carillon_history_reads_failed_total", "pages of history that Redis refused while it was reachable"),
    ("carillon_history_unreadable_total", "unreadable entries of history, which were skipped"),
    (
        "carillon_history_trimmed_total",
        "entries of history that were removed early because Redis was almost full",
    ),
    ("carillon_gaps_total", "gaps sent to readers, by reason"),
    ("carillon_notifications_accepted_total", "notifications accepted over HTTP"),
    ("carillon_messages_heard_total", "messages received from readers, by type"),
    ("carillon_messages_refused_total", "messages of readers that were refused, by code"),
    ("carillon_readers_revoked_total", "readers closed because their token or session was revoked"),
    ("carillon_revocations_restored_total", "revocations that Redis had lost and this replica wrote again"),
    ("carillon_key_fetches_failed_total", "failed fetches of the keys of JWKS_URL"),
    ("carillon_tokens_refused_total", "tokens that were refused, by reason"),
    ("carillon_keys_refused_total", "wrong API keys, and API keys without the needed scope, by reason"),
    ("carillon_signatures_refused_total", "signed requests that were refused, by reason"),
    ("carillon_people_messages_accepted_total", "messages between people that were stored, without repeats"),
    ("carillon_people_messages_repeated_total", "messages between people that were stored before"),
    ("carillon_people_messages_advanced_total", "messages between people whose status rose, by status"),
    ("carillon_acknowledgements_total", "ids of notifications that readers acknowledged"),
    ("carillon_jobs_accepted_total", "jobs put into the queue, repeats included"),
    ("carillon_jobs_refused_total", "jobs that were not put into the queue, by reason"),
    ("carillon_jobs_taken_total", "attempts at jobs that this replica started"),
    (
        "carillon_jobs_ended_total",
        "attempts at jobs that ended on this replica: done, failed, released, lost to another worker, or unsaid because Redis did not answer",
    ),
    ("carillon_jobs_given_up_total", "jobs that were given up because their last worker fell silent"),
    ("carillon_upstream_accepted_total", "messages stored for the application, repeats included"),
    (
        "carillon_upstream_attempts_total",
        "attempts to send a message to the application: arrived, failed, refused, or lost without a recorded result",
    ),
    ("carillon_upstream_undeliverable_total", "messages to the application that went to the dead list"),
    ("carillon_traces_dropped_total", "writes of messages to connections that are missing from their trace"),
    ("carillon_direct_overflows_total", "readers closed because their mailbox was full"),
    ("carillon_values_read_total", "states and presences of users that were read for readers, by kind"),
    (
        "carillon_values_failed_total",
        "states and presences of users that could not be read and were not sent, by kind",
    ),
    ("carillon_raw_heard_total", "raw payloads for users that were received"),
    ("carillon_raw_dropped_total", "raw payloads for users that were dropped because they were too large"),
    ("carillon_connections_gone_total", "notifications for a connection that had ended"),
    ("carillon_beats_failed_total", "failed reports of presence to Redis"),
    ("carillon_limits_reached_total", "clients that reached a limit, by limit"),
    (
        "carillon_addresses_unknown_total",
        "requests through a proxy that is not trusted or does not name its client",
    ),
    ("carillon_log_lines_dropped_total", "lines of the log that were dropped because stderr was blocked"),
    (READY, "1 while a condition of readiness holds, else 0, by latch"),
];

const WAITING: &str = "carillon_entries_waiting";
const READY: &str = "carillon_ready";
/// Metrics that can go down as well as up.
const GAUGES: [&str; 2] = [WAITING, READY];

/// How a reader is connected.
#[derive(Clone, Copy, Debug, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Transport {
    /// `/ws`
    Ws,
    /// `/sse`
    Sse,
    /// `/notify/ws`
    Notify,
}

/// Registers the help texts of all metrics.
pub fn describe() {
    for &(name, meaning) in ALL {
        if GAUGES.contains(&name) {
            describe_gauge!(name, meaning);
        } else {
            describe_counter!(name, meaning);
        }
    }
}

/// Updates the metrics that are read from the process. It is called before the metrics are rendered.
pub fn observe(readiness: &Readiness) {
    counter!("carillon_log_lines_dropped_total").absolute(log_lines_dropped());
    for (latch, holds) in readiness.conditions() {
        gauge!(READY, "latch" => latch).set(f64::from(u8::from(holds)));
    }
}

pub(crate) fn claimed(batch: &Batch) {
    gauge!(WAITING).set(u32::try_from(batch.waiting).unwrap_or(u32::MAX));
    if !batch.claimed.is_empty() {
        counter!("carillon_entries_claimed_total").increment(batch.claimed.len() as u64);
    }
    if batch.repeated > 0 {
        counter!("carillon_entries_repeated_total").increment(batch.repeated);
    }
    if !batch.faults.is_empty() {
        counter!("carillon_claim_faults_total").increment(batch.faults.len() as u64);
    }
}

pub(crate) fn refused(reason: &str) {
    counter!("carillon_entries_refused_total", "reason" => reason.to_owned()).increment(1);
}

pub(crate) fn claim_begun() {
    counter!("carillon_claims_total").increment(1);
}

pub(crate) fn claim_failed() {
    counter!("carillon_claims_failed_total").increment(1);
}

pub(crate) fn fanout_lost() {
    counter!("carillon_fanout_lost_total").increment(1);
}

pub(crate) fn fanout_hole() {
    counter!("carillon_fanout_holes_total").increment(1);
}

pub(crate) fn joined(transport: Transport) {
    counter!("carillon_readers_joined_total", "transport" => transport.into_str()).increment(1);
}

pub(crate) fn left(transport: Transport) {
    counter!("carillon_readers_left_total", "transport" => transport.into_str()).increment(1);
}

pub(crate) fn closed(code: CloseCode) {
    counter!("carillon_readers_closed_total", "code" => code.0.to_string()).increment(1);
}

pub(crate) fn reader_refused(status: u16) {
    counter!("carillon_readers_refused_total", "status" => status.to_string()).increment(1);
}

pub(crate) fn sent(transport: Transport, notifications: usize) {
    counter!("carillon_notifications_sent_total", "transport" => transport.into_str())
        .increment(notifications as u64);
}

pub(crate) fn expired() {
    counter!("carillon_notifications_expired_total").increment(1);
}

pub(crate) fn history_read() {
    counter!("carillon_history_reads_total").increment(1);
}

/// Counts a read that Redis refused for a reason that does not pass by itself.
pub(crate) fn history_failed() {
    counter!("carillon_history_reads_failed_total").increment(1);
}

pub(crate) fn history_unreadable(entries: u64) {
    if entries > 0 {
        counter!("carillon_history_unreadable_total").increment(entries);
    }
}

pub(crate) fn history_trimmed(entries: u64) {
    counter!("carillon_history_trimmed_total").increment(entries);
}

pub(crate) fn ring_refilled() {
    counter!("carillon_rings_refilled_total").increment(1);
}

pub(crate) fn gap(reason: GapReason) {
    let reason = match reason {
        GapReason::Trimmed => "trimmed",
        GapReason::Epoch => "epoch",
        GapReason::Unreadable => "unreadable",
    };
    counter!("carillon_gaps_total", "reason" => reason).increment(1);
}

pub(crate) fn accepted() {
    counter!("carillon_notifications_accepted_total").increment(1);
}

pub(crate) fn direct_overflowed() {
    counter!("carillon_direct_overflows_total").increment(1);
}

pub(crate) fn values_read(kind: &'static str, values: u64) {
    counter!("carillon_values_read_total", "kind" => kind).increment(values);
}

pub(crate) fn value_failed(kind: &'static str) {
    counter!("carillon_values_failed_total", "kind" => kind).increment(1);
}

pub(crate) fn raw_received() {
    counter!("carillon_raw_heard_total").increment(1);
}

pub(crate) fn raw_dropped() {
    counter!("carillon_raw_dropped_total").increment(1);
}

pub(crate) fn connection_gone() {
    counter!("carillon_connections_gone_total").increment(1);
}

pub(crate) fn key_fetch_failed() {
    counter!("carillon_key_fetches_failed_total").increment(1);
}

pub(crate) fn token_refused(reason: &'static str) {
    counter!("carillon_tokens_refused_total", "reason" => reason).increment(1);
}

pub(crate) fn key_refused(reason: &'static str) {
    counter!("carillon_keys_refused_total", "reason" => reason).increment(1);
}

pub(crate) fn signature_refused(reason: &'static str) {
    counter!("carillon_signatures_refused_total", "reason" => reason).increment(1);
}

pub(crate) fn message_received(kind: &'static str) {
    counter!("carillon_messages_heard_total", "type" => kind).increment(1);
}

pub(crate) fn message_refused(code: &str) {
    counter!("carillon_messages_refused_total", "code" => code.to_owned()).increment(1);
}

pub(crate) fn revoked(readers: usize) {
    counter!("carillon_readers_revoked_total").increment(readers as u64);
}

pub(crate) fn revocations_restored(revocations: usize) {
    counter!("carillon_revocations_restored_total").increment(revocations as u64);
}

pub(crate) fn message_accepted(repeated: bool) {
    if repeated {
        counter!("carillon_people_messages_repeated_total").increment(1);
    } else {
        counter!("carillon_people_messages_accepted_total").increment(1);
    }
}

pub(crate) fn message_advanced(status: Status, messages: u64) {
    counter!("carillon_people_messages_advanced_total", "status" => status.as_str()).increment(messages);
}

pub(crate) fn acknowledged(ids: usize) {
    counter!("carillon_acknowledgements_total").increment(ids as u64);
}

pub(crate) fn trace_dropped() {
    counter!("carillon_traces_dropped_total").increment(1);
}

/// Counts a limit of the connections of a port.
pub fn port_limit_reached(limit: PortLimit) {
    counter!("carillon_limits_reached_total", "limit" => limit.as_str()).increment(1);
}

pub(crate) fn limit_reached(limit: Limit) {
    counter!("carillon_limits_reached_total", "limit" => limit.into_str()).increment(1);
}

pub(crate) fn address_unknown() {
    counter!("carillon_addresses_unknown_total").increment(1);
}

pub(crate) fn beat_failed() {
    counter!("carillon_beats_failed_total").increment(1);
}

pub(crate) fn job_accepted() {
    counter!("carillon_jobs_accepted_total").increment(1);
}

pub(crate) fn job_refused(reason: &'static str) {
    counter!("carillon_jobs_refused_total", "reason" => reason).increment(1);
}

pub(crate) fn job_taken() {
    counter!("carillon_jobs_taken_total").increment(1);
}

pub(crate) fn job_ended(how: &'static str) {
    counter!("carillon_jobs_ended_total", "how" => how).increment(1);
}

pub(crate) fn jobs_given_up(jobs: u64) {
    if jobs > 0 {
        counter!("carillon_jobs_given_up_total").increment(jobs);
    }
}

/// The result of an attempt to send a message to the application.
#[derive(Clone, Copy, Debug, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub(crate) enum Attempt {
    Arrived,
    Failed,
    Refused,
    Lost,
}

pub(crate) fn upstream_accepted() {
    counter!("carillon_upstream_accepted_total").increment(1);
}

pub(crate) fn upstream_attempt(attempt: Attempt) {
    counter!("carillon_upstream_attempts_total", "outcome" => attempt.into_str()).increment(1);
}

pub(crate) fn upstream_undeliverable(messages: u64) {
    if messages > 0 {
        counter!("carillon_upstream_undeliverable_total").increment(messages);
    }
}
