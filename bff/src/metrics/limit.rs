use strum::IntoStaticStr;

/// The limits that a client can reach.
#[derive(Clone, Copy, Debug, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
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
