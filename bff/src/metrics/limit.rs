/// The limits that a client can reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    RequestsPerAddress,
    Readers,
    ReadersPerUser,
    ReadersPerAddress,
    PublishesPerKey,
    PublishesPerUser,
    RequestTime,
    BodyBytes,
    Slow,
    MessageBytes,
    UnfinishedBytes,
    Messages,
    Topics,
    HistoryReads,
    HistoryRate,
    DistinctTopics,
    Subscriptions,
    SubscriptionsPerAddress,
    PageBytes,
    StoredBytes,
    RedisMemory,
    KeyGuesses,
}

impl Limit {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerAddress => "requests_per_address",
            Self::Readers => "readers",
            Self::ReadersPerUser => "readers_per_user",
            Self::ReadersPerAddress => "readers_per_address",
            Self::PublishesPerKey => "publishes_per_key",
            Self::PublishesPerUser => "publishes_per_user",
            Self::RequestTime => "request_time",
            Self::BodyBytes => "body_bytes",
            Self::Slow => "slow",
            Self::MessageBytes => "message_bytes",
            Self::UnfinishedBytes => "unfinished_bytes",
            Self::Messages => "messages",
            Self::Topics => "topics",
            Self::HistoryReads => "history_reads",
            Self::HistoryRate => "history_rate",
            Self::DistinctTopics => "distinct_topics",
            Self::Subscriptions => "subscriptions",
            Self::SubscriptionsPerAddress => "subscriptions_per_address",
            Self::PageBytes => "page_bytes",
            Self::StoredBytes => "stored_bytes",
            Self::RedisMemory => "redis_memory",
            Self::KeyGuesses => "key_guesses",
        }
    }
}
