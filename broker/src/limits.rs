//! Bounds of what the broker stores and of how long it waits.

use std::time::Duration;

/// Entries that one claim takes at most; a thousand would block Redis for 24 to 65 ms.
pub const BATCH_MAX_ENTRIES: usize = 64;
/// A claim stops after the entry that passes this.
pub const BATCH_MAX_BYTES: usize = 256 * 1024;

/// Entries that one read takes at most, from all its histories together.
pub const READ_MAX_ENTRIES: usize = 128;
/// Bytes of the entries of one read at most; one entry always fits.
pub const READ_MAX_BYTES: usize = 512 * 1024;

/// Entries of a dead list at most; the oldest goes first. It has at most 8 MiB too: see dead.lua.
pub const DEAD_MAX_ENTRIES: usize = 1_000;
/// How much of a refused entry is kept: all that a claim takes.
pub const DEAD_RAW_MAX_BYTES: usize = 64 * 1_024;

/// A repeated id is dropped for at least this long, unless more than [`IDS_MAX`] ids arrive meanwhile.
pub const IDS_KEEP_MS: u64 = 10 * 60 * 1_000;
/// Ids that are remembered at most, in two sets that take turns.
pub const IDS_MAX: u64 = 1_000_000;

/// One step raises at most as many messages as one frame may name.
pub use carillon_protocol::limits::ADVANCE_MAX_IDS;
/// Connections to which a message was written that are kept for its trace.
pub const WRITINGS_MAX: usize = 8;

/// The period of [`Settings::stored_bytes_per_day`](crate::Settings): a day, in milliseconds.
pub(crate) const STORED_PERIOD_MS: u64 = 24 * 60 * 60 * 1_000;

/// Users that one heartbeat of a run names, removes and announces at most. A thousand would block Redis too long.
pub const PRESENCE_BATCH_MAX_USERS: usize = 256;
/// Revocations are kept for this many seconds: 31 days, a day longer than any token is valid.
pub const REVOCATIONS_KEEP_S: u64 = 31 * 86_400;
/// Seconds that Redis' clock may add to a revocation, since two clocks differ.
pub const REVOCATION_SKEW_MAX_S: u64 = 300;
/// Revocations that are kept at most; beyond it, new ones are refused.
pub const REVOCATIONS_MAX: usize = 100_000;

/// Bytes of a key that may be used once.
pub const USED_KEY_MAX_BYTES: usize = 256;
/// A key stays used for at most this long.
pub const USED_KEY_MAX_KEEP: Duration = Duration::from_secs(7 * 86_400);

/// Bytes of the names and values of a user's state at most.
pub const STATE_MAX_BYTES: usize = 64 * 1024;
/// Bytes that are published to a user at once at most.
pub const RAW_MAX_BYTES: usize = 64 * 1024;

/// A connection to Redis that is not up after this has failed.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A command that has no answer after this has failed, and so has its connection.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a subscription is pinged, since a peer that has vanished causes no error by itself.
pub(crate) const PING_EVERY: Duration = Duration::from_millis(500);
/// A subscription that has not answered a ping after this is dropped, and a new one opened.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_millis(1_500);
/// The longest pause between two attempts to reach Redis, in milliseconds.
pub(crate) const RECONNECT_CAP_MS: u64 = 1_000;
/// A subscription that lasted this long clears the back-off.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(2);
/// Audiences whose channels are named in one SUBSCRIBE; a user has three.
pub(crate) const SUBSCRIBE_MAX_AUDIENCES: usize = 300;
/// How often a listener publishes a sign of life to itself, through the server that takes commands.
pub(crate) const ECHO_EVERY: Duration = Duration::from_secs(1);
/// When a sign of life has not come back after this, the listener is connected to another server, or to none. With
/// [`ECHO_EVERY`] before it, this is noticed within 3 s.
pub(crate) const ECHO_TIMEOUT: Duration = Duration::from_secs(2);
/// The mode of fan-out binds new replicas for this long after the last replica that had it.
pub(crate) const FANOUT_MODE_KEEP: Duration = Duration::from_secs(15);
/// A page of history that has not come after this has failed, and so has its connection.
pub(crate) const BULK_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Jobs that wait or run at most.
pub const JOBS_MAX: usize = 10_000;
/// Jobs of one owner that wait or run at most, so that none of them fills the queue alone.
pub const JOBS_OWNER_MAX: usize = 5;
/// Jobs of owners who are not signed in that wait or run at most: a fifth, so that they leave room for all others. Anybody
/// may begin any number of sessions.
pub const JOBS_ANONYMOUS_MAX: usize = JOBS_MAX / 5;
/// Jobs of one owner that are listed at most; older ones are found by their id.
pub const JOBS_LISTED_MAX: usize = 20;
/// Longest input of a job.
pub const JOB_INPUT_MAX_BYTES: usize = 8 * 1024;
/// Longest result of a job.
pub const JOB_RESULT_MAX_BYTES: usize = 8 * 1024;
/// A job is deleted this long after its last change.
pub const JOB_KEEP_MS: u64 = 24 * 60 * 60 * 1_000;
/// A worker that has not reported for this long has lost its job.
pub const JOB_LEASE_MS: u64 = 15_000;
/// Attempts at a job at most.
pub const JOB_ATTEMPTS_MAX: u32 = 3;
/// The pause after the first failed attempt; it doubles with each attempt.
pub const JOB_PAUSE_MS: u64 = 1_000;
/// Jobs that one call of `take_job` gives up or drops at most.
pub const JOB_LOOKS_MAX: u64 = 64;

/// Messages to the application that wait at most.
pub const OUTBOX_MAX: usize = 10_000;
/// Messages of one session or user that wait at most, so that none of them fills the outbox alone.
pub const OUTBOX_LINE_MAX: usize = 100;
/// Messages of one user that wait at most, in all sessions together: a user may have any number of sessions.
pub const OUTBOX_USER_MAX: usize = 200;
/// A replica that has not reported on a message for this long has lost it.
pub const OUTBOX_LEASE_MS: u64 = 15_000;
/// Messages of people who are not signed in that wait at most: a fifth, so that they leave room for all others.
pub const OUTBOX_ANONYMOUS_MAX: usize = OUTBOX_MAX / 5;
/// A message that has not arrived is retried for this long: a day, in milliseconds.
pub const OUTBOX_KEEP_MS: u64 = 24 * 60 * 60 * 1_000;
/// The longest pause of a line: an hour, in milliseconds. A line that seems to be due later is due now.
pub const OUTBOX_PAUSE_MAX_MS: u64 = 60 * 60 * 1_000;
/// How many replicas in a row may fall silent over a message.
pub const OUTBOX_SILENT_MAX: u32 = 10;
