/// Why the broker could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// Redis cannot be reached, does not answer, or will not for now. Whether it did what was asked is not known.
    #[error("Redis is away: {0}")]
    Away(String),
    /// Redis answered that it will not.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// The URL cannot be used.
    #[error("no usable Redis URL: {0}; write redis://[user:password@]host[:port][/db] or rediss://… for TLS")]
    Url(String),
}

/// Answers of a server that may do later, or elsewhere under the same name, what it will not do now.
const NOT_NOW: [&str; 13] = [
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "OOM",
    "MISCONF",
    "BUSY",
    "NOREPLICAS",
    "MOVED",
    "ASK",
    "CROSSSLOT",
    "UNBLOCKED",
];

impl From<redis::RedisError> for BrokerError {
    fn from(error: redis::RedisError) -> Self {
        let not_now = error.code().is_some_and(|code| NOT_NOW.contains(&code));
        if not_now
            || error.is_io_error()
            || error.is_unrecoverable_error()
            || error.kind() == redis::ErrorKind::Parse
        {
            Self::Away(error.to_string())
        } else {
            Self::Refused(error.to_string())
        }
    }
}
