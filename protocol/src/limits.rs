//! Every limit of the wire, with its unit in the name.

/// A larger entry of the list goes to the dead list without being decoded; a larger request body gets a 413.
pub const ENTRY_MAX_BYTES: usize = 64 * 1024;
/// Maximum bytes of a notification that a person sends, as it was sent; a larger one gets a 413.
pub const SEND_MAX_BYTES: usize = 16 * 1024;
/// Longest `title`, in Unicode scalar values.
pub const TITLE_MAX_CHARS: usize = 200;
/// Longest `body`, in Unicode scalar values.
pub const BODY_MAX_CHARS: usize = 4_000;
/// Longest `id`, `from`, `collapse_key` and name in `to`, in bytes; the shortest is 1.
pub const NAME_MAX_BYTES: usize = 128;
/// The prefix before a user's name in the topic of the user's presence.
pub const PRESENCE_TOPIC: &str = "presence:";
/// Maximum bytes of a topic with that prefix; any other topic has at most as many bytes as any name.
pub const TOPIC_MAX_BYTES: usize = PRESENCE_TOPIC.len() + NAME_MAX_BYTES;
/// Longest `action.label`, in Unicode scalar values.
pub const ACTION_LABEL_MAX_CHARS: usize = 80;
/// Longest `action.url`, in bytes.
pub const ACTION_URL_MAX_BYTES: usize = 2_048;
/// Longest `traceparent`, in bytes (W3C Trace Context uses 55).
pub const TRACEPARENT_MAX_BYTES: usize = 128;

/// Most ids that one `ack` or `read` may name.
pub const ADVANCE_MAX_IDS: usize = 64;
/// Most topics one reader may name when it connects.
pub const TOPICS_MAX: usize = 64;
/// Page size of `GET /api/notifications` when `limit` is absent.
pub const PAGE_DEFAULT_ITEMS: usize = 100;
/// Largest page of `GET /api/notifications`.
pub const PAGE_MAX_ITEMS: usize = 1_000;
/// Maximum bytes of the notifications in one page, which has at least one.
pub const PAGE_MAX_BYTES: usize = 1024 * 1024;
/// Entries that may wait in the list before `POST /api/notifications` answers 503.
pub const WAITING_MAX_ENTRIES: u64 = 100_000;

/// Longest id of a job, so that the ids of its reports are names too.
pub const JOB_ID_MAX_BYTES: usize = 100;
/// Longest name of a job, in Unicode scalar values.
pub const JOB_NAME_MAX_CHARS: usize = 120;
/// Most steps of a job.
pub const JOB_STEPS_MAX: u32 = 100;

/// A heartbeat frame and a WebSocket ping go out this often.
pub const HEARTBEAT_MS: u64 = 25_000;
/// Either side drops the connection after this time without a frame from the other.
pub const SILENCE_MS: u64 = 60_000;
/// A connection without a welcome after this time is dropped and tried again.
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;

/// The longest wait before the first reconnect.
pub const BACKOFF_BASE_MS: u64 = 500;
/// The longest wait before any reconnect.
pub const BACKOFF_CAP_MS: u64 = 20_000;
/// A connection that was live for this time resets the back-off.
pub const BACKOFF_RESET_AFTER_MS: u64 = 5_000;

/// Maximum ids that a client remembers to drop repeated notifications.
pub const SEEN_MAX_IDS: usize = 4_096;

/// How long acknowledgements wait for more, to be sent together.
pub const ACK_AFTER_MS: u64 = 200;
/// Maximum acknowledgements that wait. Beyond it the oldest is dropped, and the message is acknowledged when it is read.
pub const ACKS_WAITING_MAX_IDS: usize = 500;
/// Acknowledgements that were sent within this time before a connection broke may be lost, and are sent again.
pub const ACK_AGAIN_MS: u64 = 60_000;
