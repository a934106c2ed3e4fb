/// Why the broker could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// Redis cannot be reached or does not answer. Whether it did what was asked is not known.
    #[error("Redis is away: {0}")]
    Away(String),
    /// Redis answered that it will not.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// The URL cannot be used.
    #[error("no usable Redis URL: {0}; write redis://[user:password@]host[:port][/db] or rediss://… for TLS")]
    Url(String),
}

impl From<redis::RedisError> for BrokerError {
    fn from(error: redis::RedisError) -> Self {
        if error.is_io_error() || error.is_unrecoverable_error() || error.kind() == redis::ErrorKind::Parse {
            Self::Away(error.to_string())
        } else {
            Self::Refused(error.to_string())
        }
    }
}
